//! `peyk kcm` before a real Redis: the answers are right, and redis-benchmark completes.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A process; dropping it ends it.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Redis at a free port; says loudly when it is not installed.
fn redis() -> Option<(Process, String)> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let spawned = Command::new("redis-server")
        .args(["--save", "", "--port", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(child) = spawned else {
        eprintln!("!!! SKIPPED: redis-server is not installed");
        return None;
    };
    let (server, address) = (Process(child), format!("127.0.0.1:{port}"));
    let start = Instant::now();
    while TcpStream::connect(&address).is_err() {
        assert!(start.elapsed() < PATIENCE, "the server does not answer");
        std::thread::sleep(Duration::from_millis(5));
    }
    Some((server, address))
}

/// The relay before it, what it says, and where it listens.
fn relay(backend: &str) -> (Process, BufReader<ChildStdout>, String) {
    let arguments = ["kcm", "--frame", "resp", "--listen", "127.0.0.1:0", "--backend", backend];
    let mut child =
        crate::common::peyk(&arguments).args(["--connections", "4"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    // relaying resp messages from ADDRESS over 4 connections
    assert!(line.starts_with("relaying resp messages from "), "{line}");
    let address = line.split_whitespace().nth(4).unwrap().to_owned();
    (Process(child), out, address)
}

#[test]
fn kcm_relays_redis_benchmark_to_a_real_redis() {
    let Some((_server, backend)) = redis() else { return };
    let (mut process, mut out, address) = relay(&backend);
    // Answers are right: each says which request it belongs to.
    let mut client = TcpStream::connect(&address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let bulk = |i: u32| format!("$8\r\n{i:08}\r\n");
    let requests: String = (0..2000).map(|i| format!("*2\r\n$4\r\nECHO\r\n{}", bulk(i))).collect();
    let expected: String = (0..2000).map(bulk).collect();
    client.write_all(requests.as_bytes()).unwrap();
    let mut got = vec![0; expected.len()];
    client.read_exact(&mut got).unwrap();
    assert!(got == expected.as_bytes());
    let (host, port) = address.rsplit_once(':').unwrap();
    let ran = Command::new("redis-benchmark")
        .args([
            "-h",
            host,
            "-p",
            port,
            "-n",
            "4000",
            "-c",
            "20",
            "-P",
            "8",
            "-t",
            "ping,set,get,incr,lpush,mset",
        ])
        .output();
    match ran {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{said}");
            assert!(said.contains("requests per second") && !said.to_lowercase().contains("error"), "{said}");
        }
        Err(_) => eprintln!("!!! SKIPPED: redis-benchmark is not installed"),
    }
    // Interrupted, it tells what it has done: as many answers as requests, on both sides.
    let pid = process.0.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert!(process.0.wait().unwrap().success());
    assert!(rest.contains("*** KCM statistics (2 MUX) ****"), "{rest}");
    assert!(rest.contains("requests lost with their backend: 0"), "{rest}");
    let received: Vec<&str> = rest
        .lines()
        .filter(|line| line.starts_with("mux "))
        .map(|line| line.split_whitespace().nth(1).unwrap())
        .collect();
    assert!(received.len() == 2 && received[0] == received[1], "{rest}");
    assert!(received[0].parse::<u64>().unwrap() >= 2000);
}

#[test]
fn kcm_says_what_is_wrong() {
    let run = |arguments: &[&str]| {
        let output = crate::common::peyk(arguments).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let unknown = run(&["kcm", "--frame", "no-such-protocol", "--backend", "127.0.0.1:1"]);
    assert!(unknown.contains("resp") && unknown.contains("thrift"), "it lists what there is: {unknown}");
    let file = run(&["kcm", "--frame", "bpf:/nowhere.o", "--backend", "127.0.0.1:1"]);
    assert!(file.contains("/nowhere.o"), "{file}");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let refused = run(&["kcm", "--frame", "resp", "--listen", "127.0.0.1:0", "--backend", &nobody]);
    assert!(refused.contains("starting the relay"), "{refused}");
}
