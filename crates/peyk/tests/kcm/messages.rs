//! Messages between threads and connections: order, replies, back-pressure, TLS, addresses.

use super::*;
use peyk::kcm::framer::{Kafka, RespCommand};
use peyk::kcm::{Config, Event, Mux, Order, SendFlags, ServeOptions, Steer, Target, TlsConn};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn pull(order: Order) -> Config {
    Config { steer: Steer::Pull, order, ..Config::default() }
}

#[test]
fn case_064__one_byte_at_a_time() {
    let (mux, socket) = Mux::open(Config::default()).unwrap();
    let (near, far) = pair();
    mux.attach(near, frames()).unwrap();
    for byte in msg(b"slowly") {
        write_all(&far, &[byte]);
        std::thread::sleep(Duration::from_micros(200));
    }
    assert_eq!(&socket.recv_timeout(PATIENCE).unwrap()[4..], b"slowly");
}

#[test]
fn case_071__a_slow_consumer_stops_its_peer_and_loses_nothing() {
    let config = Config { receive_buffer: 64 * 1024, ..Config::default() };
    let (mux, socket) = Mux::open(config).unwrap();
    let (near, far) = pair();
    mux.attach(near, frames()).unwrap();
    const COUNT: u32 = 20_000;
    let writer = std::thread::spawn(move || {
        for i in 0..COUNT {
            let mut body = i.to_be_bytes().to_vec();
            body.resize(1000, 0);
            write_all(&far, &msg(&body));
        }
        far
    });
    std::thread::sleep(Duration::from_millis(200));
    assert!(!writer.is_finished(), "20 MB do not fit anywhere: the peer waits");
    assert!(mux.memory_used() < 1 << 20, "{}", mux.memory_used());
    for i in 0..COUNT {
        assert_eq!(socket.recv_timeout(PATIENCE).unwrap()[4..8], i.to_be_bytes());
    }
    writer.join().unwrap();
}

#[test]
fn case_078__a_dropped_receive_loses_no_message() {
    const CANCELS: u32 = 100_000;
    let (mux, socket) = Mux::open(Config::default()).unwrap();
    let (near, far) = pair();
    mux.attach(near, frames()).unwrap();
    let count = 20_000u32;
    let writer = std::thread::spawn(move || {
        for i in 0..count {
            write_all(&far, &msg(&i.to_be_bytes()));
        }
        far
    });
    let mut prng = peyk_sansio::Prng::new(78);
    let (mut next, mut cancels, mut timeouts) = (0u32, 0u32, 0u32);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    while next < count || cancels < CANCELS {
        // Looked at once and dropped: before, while or after the message comes.
        let looked = std::pin::pin!(socket.recv()).poll(&mut context);
        let outcome = match looked {
            std::task::Poll::Ready(outcome) => outcome,
            std::task::Poll::Pending => {
                cancels += 1;
                if next == count || prng.chance(0.9) {
                    continue;
                }
                socket.recv_timeout(Duration::from_micros(prng.below(7)))
            }
        };
        match outcome {
            Ok(message) => {
                assert_eq!(message[4..], next.to_be_bytes());
                next += 1;
            }
            Err(error) => {
                assert_eq!(error, peyk::kcm::RecvError::WouldBlock);
                timeouts += 1;
            }
        }
    }
    assert!(timeouts > 0);
    writer.join().unwrap();
    assert!(socket.try_recv().is_err());
}

#[test]
fn serve__a_handler_that_panics_ends_its_connection_only() {
    let (mux, socket) = Mux::open(pull(Order::Any)).unwrap();
    let here = mux.listen(loopback(), frames(), false).unwrap();
    let options = ServeOptions { threads: 2, ..ServeOptions::default() };
    let _workers = mux
        .serve(&socket, options, |message, replies| {
            assert!(!message.bytes.ends_with(b"bad"), "what a message");
            replies.reply(message.bytes);
        })
        .unwrap();
    let client = || {
        let client = TcpStream::connect(here.local_addr()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    };
    let (bad, good) = (client(), client());
    write_all(&bad, &msg(b"first"));
    assert_eq!(read_msg(&bad).unwrap(), b"first");
    write_all(&bad, &msg(b"bad"));
    assert!(!matches!((&bad).read(&mut [0; 1]), Ok(count) if count > 0), "its end, or a reset");
    // The other worker goes on.
    for i in 0..100u32 {
        write_all(&good, &msg(&i.to_be_bytes()));
        assert_eq!(read_msg(&good).unwrap(), i.to_be_bytes());
    }
    until("it is freed", || mux.psocks().len() == 1);
}

/// Whoever takes more than one message that is worth a wake-up makes the others wait for the first.
#[test]
fn serve__dear_messages_are_taken_one_by_one() {
    let (mux, socket) = Mux::open(pull(Order::Any)).unwrap();
    let here = mux.listen(loopback(), frames(), false).unwrap();
    // A message "g" and a number is being handled until the gate of that number is open.
    let gates: Arc<[AtomicBool; 4]> = Arc::default();
    let (enter, entered) = std::sync::mpsc::channel();
    let handler_gates = gates.clone();
    let _workers = mux
        .serve(&socket, ServeOptions { threads: 2, ..ServeOptions::default() }, move |message, replies| {
            match message.bytes[4..] {
                [b'g', number] => {
                    enter.send(number).unwrap();
                    until("a gate is open", || handler_gates[usize::from(number)].load(Ordering::Acquire));
                }
                [b'd'] => std::thread::sleep(Duration::from_millis(1)),
                _ => {}
            }
            replies.reply(message.bytes);
        })
        .unwrap();
    let open = |number: usize| gates[number].store(true, Ordering::Release);
    let clients = [(); 3].map(|()| {
        let client = TcpStream::connect(here.local_addr()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    });
    // Until that is known of them.
    for _ in 0..100 {
        write_all(&clients[0], &msg(b"d"));
        assert_eq!(read_msg(&clients[0]).unwrap(), b"d");
    }
    for number in [0, 1] {
        write_all(&clients[usize::from(number)], &msg(&[b'g', number]));
        assert_eq!(entered.recv_timeout(PATIENCE).unwrap(), number);
    }
    // Both are at work when these come. One becomes free, then the other, and then the first again.
    let waiting = [&b"g\x02"[..], b"g\x03", b"x1", b"x2", b"x3", b"x4"];
    write_all(&clients[2], &waiting.map(msg).concat());
    for number in [2, 3] {
        open(usize::from(number) - 2);
        assert_eq!(entered.recv_timeout(PATIENCE).unwrap(), number);
    }
    open(2);
    for expected in [&b"g\x02"[..], b"x1", b"x2", b"x3", b"x4"] {
        assert_eq!(read_msg(&clients[2]).unwrap(), expected, "it waits for another message");
    }
    open(3);
    assert_eq!(read_msg(&clients[2]).unwrap(), b"g\x03");
}

#[test]
fn case_081__one_mux_answers_every_client() {
    // Ten thousand of them have a process of their own: `tests/kcm_many.rs`.
    let clients = 400;
    let (mux, socket) = Mux::open(pull(Order::Any)).unwrap();
    let here = mux.listen(loopback(), frames(), false).unwrap();
    let _workers = mux
        .serve(&socket, ServeOptions { threads: 3, ..ServeOptions::default() }, |message, replies| {
            replies.reply(message.bytes);
        })
        .unwrap();
    let clients: Vec<TcpStream> =
        (0..clients).map(|_| TcpStream::connect(here.local_addr()).unwrap()).collect();
    for (i, client) in clients.iter().enumerate() {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        write_all(client, &[msg(&i.to_be_bytes()), msg(b"and more")].concat());
    }
    for (i, client) in clients.iter().enumerate() {
        let mut got = [read_msg(client).unwrap(), read_msg(client).unwrap()];
        got.sort();
        let mut sent = [i.to_be_bytes().to_vec(), b"and more".to_vec()];
        sent.sort();
        assert_eq!(got, sent);
    }
    assert_eq!(mux.psocks().len(), clients.len());
    drop(clients);
    until("all are freed", || mux.psocks().is_empty());
}

#[test]
fn replies__stay_in_order_while_all_threads_work() {
    for order in [Order::Replies, Order::Connection] {
        let (mux, socket) = Mux::open(pull(order)).unwrap();
        let here = mux.listen(loopback(), Box::new(Kafka::default()), false).unwrap();
        let options = ServeOptions { threads: 4, ..ServeOptions::default() };
        let _workers = mux
            .serve(&socket, options, |message, replies| {
                std::thread::sleep(Duration::from_micros(u64::from(message.bytes[7] % 5) * 100));
                replies.reply(message.bytes);
            })
            .unwrap();
        let client = TcpStream::connect(here.local_addr()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let all: Vec<u8> = (0..500u32).flat_map(|i| msg(&i.to_be_bytes())).collect();
        write_all(&client, &all);
        for i in 0..500u32 {
            assert_eq!(read_msg(&client).unwrap(), i.to_be_bytes(), "{order:?}");
        }
    }
    // Without an order such a protocol is refused, and its connection closed.
    let (mux, _socket) = Mux::open(pull(Order::Checked)).unwrap();
    let here = mux.listen(loopback(), Box::new(RespCommand), false).unwrap();
    let client = TcpStream::connect(here.local_addr()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!((&client).read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn eof__a_half_closed_client_gets_its_answers() {
    let (mux, socket) = Mux::open(pull(Order::Any)).unwrap();
    let here = mux.listen(loopback(), frames(), false).unwrap();
    let _workers = mux
        .serve(&socket, ServeOptions::default(), |message, replies| {
            std::thread::sleep(Duration::from_millis(5));
            replies.reply(message.bytes);
        })
        .unwrap();
    let client = TcpStream::connect(here.local_addr()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    (0..20).for_each(|_| write_all(&client, &msg(b"last words")));
    client.shutdown(std::net::Shutdown::Write).unwrap();
    (0..20).for_each(|_| assert_eq!(read_msg(&client).unwrap(), b"last words"));
    assert_eq!((&client).read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn eof__that_comes_with_the_last_bytes_is_seen() {
    let (mux, socket) = Mux::open(pull(Order::Any)).unwrap();
    let (busy, is_busy) = std::sync::mpsc::channel();
    let options = ServeOptions { threads: 1, ..ServeOptions::default() };
    let _worker = mux
        .serve(&socket, options, move |message, replies| {
            if message.bytes.ends_with(b"slow") {
                busy.send(()).unwrap();
                std::thread::sleep(Duration::from_millis(50));
            }
            replies.reply(message.bytes);
        })
        .unwrap();
    let (near, client) = pair();
    let (other_near, other) = pair();
    mux.attach(near, frames()).unwrap();
    mux.attach(other_near, frames()).unwrap();
    write_all(&client, &msg(b"hello"));
    assert_eq!(read_msg(&client).unwrap(), b"hello");
    // While the only worker is busy, bytes and end both come: one edge tells of both.
    write_all(&other, &msg(b"slow"));
    is_busy.recv_timeout(PATIENCE).unwrap();
    write_all(&client, &msg(b"last words"));
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_msg(&client).unwrap(), b"last words");
    assert_eq!((&client).read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn targets__addresses_are_connected_on_demand() {
    let servers: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind(loopback()).unwrap()).collect();
    let (mux, socket) = Mux::open(Config::default()).unwrap();
    mux.connect_on_demand(frames());
    for round in 0..3u8 {
        for server in &servers {
            let to = Target::Addr(server.local_addr().unwrap());
            peyk::block_on(socket.send_to(msg(&[round]), to)).unwrap();
        }
    }
    for server in &servers {
        let (tcp, _) = server.accept().unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        (0..3u8).for_each(|round| assert_eq!(read_msg(&tcp).unwrap(), [round]));
        write_all(&tcp, &msg(b"answer"));
        assert_eq!(&socket.recv_timeout(PATIENCE).unwrap()[4..], b"answer");
    }
    // Nobody is there: the sender hears of it, and is well afterwards.
    let nobody = { TcpListener::bind(loopback()).unwrap().local_addr().unwrap() };
    peyk::block_on(socket.send_to(msg(b"x"), Target::Addr(nobody))).unwrap();
    until("the error is said", || {
        let flags = SendFlags { end: true, to: Target::Addr(nobody), ..SendFlags::default() };
        matches!(socket.try_send(msg(b"y"), flags), Err(peyk::kcm::SendError::Earlier(_)))
    });
}

#[test]
fn case_020__tls_below_a_mux() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (near, far) = pair();
    let near = TlsConn::new(near, rustls::ServerConnection::new(Arc::new(server)).unwrap()).unwrap();
    let name = "localhost".try_into().unwrap();
    let far = TlsConn::new(far, rustls::ClientConnection::new(Arc::new(client), name).unwrap()).unwrap();
    let (here, inbox) = Mux::open(Config::default()).unwrap();
    let (there, outbox) = Mux::open(Config::default()).unwrap();
    here.attach_stream(Box::new(near), frames(), Default::default(), false).unwrap();
    let psock = there.attach_stream(Box::new(far), frames(), Default::default(), false).unwrap();
    for size in [1, 100, 20_000, 1_000_000] {
        let body = vec![size as u8; size];
        peyk::block_on(outbox.send(msg(&body))).unwrap();
        let message = inbox.recv_timeout(PATIENCE).unwrap();
        assert_eq!(message[4..], body);
        peyk::block_on(inbox.reply(&message, message.bytes().clone())).unwrap();
        assert_eq!(outbox.recv_timeout(PATIENCE).unwrap()[4..], body);
    }
    // close_notify is an orderly end.
    drop(inbox);
    let Some(Event::PsockDown { psock: down, cause, .. }) = peyk::block_on(there.next_event()) else {
        panic!()
    };
    assert_eq!((down, cause), (psock, peyk::kcm::Cause::Eof));
}

#[test]
fn splice__a_file_is_a_message() {
    let (mux, socket) = Mux::open(Config::default()).unwrap();
    let (near, far) = pair();
    mux.attach(near, frames()).unwrap();
    let body = vec![3; 300_000];
    let mut source = std::io::Cursor::new(msg(&body));
    socket.send_from(&mut source, SendFlags { end: true, ..SendFlags::default() }).unwrap();
    assert_eq!(read_msg(&far).unwrap(), body);
}

#[test]
fn long_messages__arrive_whole() {
    let (mux, socket) = Mux::open(Config { max_message: 64 << 20, ..Config::default() }).unwrap();
    let (near, far) = pair();
    mux.attach(near, frames()).unwrap();
    let body: Vec<u8> = (0..40_000_000u32).map(|i| (i * 7) as u8).collect();
    let sent = body.clone();
    let writer = std::thread::spawn(move || {
        write_all(&far, &[msg(&sent), msg(b"after")].concat());
        far
    });
    assert!(socket.recv_timeout(PATIENCE).unwrap()[4..] == body);
    assert_eq!(&socket.recv_timeout(PATIENCE).unwrap()[4..], b"after");
    writer.join().unwrap();
}
