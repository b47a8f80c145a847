//! Counters and status: cases 107 to 110.

use crate::common::sim::*;
use peyk_kcm::error::Code;
use peyk_kcm::status::{json, kcm, kcm_stats, mux_columns, prometheus, psock_columns};
use peyk_kcm::*;

#[test]
fn case_108__each_counter_by_its_event() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 1, 2);
    let socket = sockets[0];
    lab.send(socket, b"abc");
    let sent = lab.mux.psock_stats(psocks[0]).unwrap();
    assert_eq!((sent.tx_msgs, sent.tx_bytes, sent.reserved, sent.unreserved), (1, 5, 1, 1));
    lab.input(psocks[0], &msg(b"xy"));
    let received = lab.mux.psock_stats(psocks[0]).unwrap();
    assert_eq!((received.rx_msgs, received.rx_bytes), (1, 4));
    assert_eq!(lab.mux.socket_stats(socket).unwrap().rx_msgs, 0, "not before it is received");
    lab.drain(socket);
    let stats = lab.mux.socket_stats(socket).unwrap();
    assert_eq!((stats.rx_msgs, stats.rx_bytes, stats.tx_msgs, stats.tx_bytes), (1, 4, 1, 5));
    lab.error(psocks[1], Code::CONNRESET);
    assert_eq!(lab.mux.psock_stats(psocks[1]).unwrap().tx_aborts, 1);
    lab.mux.unattach(psocks[1], lab.now).unwrap();
    let mux = lab.mux.stats();
    assert_eq!((mux.rx_msgs, mux.rx_bytes, mux.tx_msgs, mux.tx_bytes), (1, 4, 1, 5));
    assert_eq!((mux.psock_attach, mux.psock_unattach, mux.psock_unattach_rsvd), (2, 1, 0));
}

#[test]
fn case_109__the_texts_have_the_columns_of_the_kernel() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 2, 2);
    lab.peers.get_mut(&psocks[0]).unwrap().is_full = true;
    lab.send(sockets[0], b"stuck");
    lab.input(psocks[1], &[0, 100, 1]);
    lab.mux.unattach(psocks[0], lab.now).unwrap();
    lab.attach();
    let text = kcm(&[lab.mux.snapshot()]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "*** KCM statistics (1 MUX) ****");
    let head = lines[1];
    let starts = [
        ("Object", 0),
        ("RX-Msgs", 15),
        ("RX-Bytes", 26),
        ("TX-Msgs", 43),
        ("TX-Bytes", 54),
        ("Recv-Q", 71),
        ("Rmem", 80),
        ("Send-Q", 89),
        ("Smem", 98),
        ("Status", 107),
    ];
    for (name, at) in starts {
        assert!(head[at..].starts_with(name), "{name} in {head:?}");
    }
    assert!(lines[2].starts_with("mux ") && lines[2].ends_with("KCMs: 2, Psocks 2"));
    assert!(lines[3].starts_with("   kcm-0") && lines[5].starts_with("   psock-0"));
    assert!(text.contains("RxWait=99"), "{text}");
    let stats = kcm_stats(&[lab.mux.snapshot()]);
    let rows: Vec<Vec<&str>> = stats.lines().map(|line| line.split_whitespace().collect()).collect();
    let column = |rows: &[Vec<&str>], name: &str| {
        let at = rows[0].iter().position(|head| *head == name).unwrap();
        rows[1][at - 1].parse::<u64>().unwrap()
    };
    assert_eq!((column(&rows, "Attach"), column(&rows, "Unattach"), column(&rows, "UnattchRsvd")), (3, 1, 1));
    assert_eq!(rows[2][0], "Psock");
    assert_eq!(rows[2].len() - 1, rows[3].len());
}

#[test]
fn case_110__a_retry_shows_everywhere() {
    let (mut lab, sockets, psocks) = Lab::with(Config::default(), 1, 2);
    lab.peers.get_mut(&psocks[0]).unwrap().fails_at = Some(3);
    lab.send(sockets[0], b"again");
    let snapshot = [lab.mux.snapshot()];
    assert_eq!((snapshot[0].mux.tx_retries, snapshot[0].psock_sum.tx_aborts), (1, 1));
    let json = json(&snapshot);
    assert!(json.contains("\"TX-Retries\":1") && json.contains("\"TX-Aborts\":1"), "{json}");
    let prometheus = prometheus(&snapshot);
    assert!(prometheus.contains("kcm_mux_tx_retries_total 1\n"), "{prometheus}");
    assert!(prometheus.contains("kcm_psock_tx_aborts_total 1\n"));
    let text = kcm_stats(&snapshot);
    for (columns, line) in
        [(&mux_columns(&snapshot[0].mux)[..], 1), (&psock_columns(&snapshot[0].psock_sum)[..], 3)]
    {
        let values: Vec<u64> =
            text.lines().nth(line).unwrap().split_whitespace().map(|v| v.parse().unwrap()).collect();
        assert_eq!(values, columns.iter().map(|(_, value)| *value).collect::<Vec<_>>());
    }
}
