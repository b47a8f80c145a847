//! `peyk serve` and `peyk ping` against each other.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A server on a UDP port of its own; ended with the test.
struct Server {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Server {
    fn start(bind: &str) -> (Server, String) {
        let mut child = crate::common::peyk(&["serve", "--bind", bind, "--udp-port", "0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert!(line.starts_with("echo server at Homa port 4000"), "{line}");
        line.clear();
        out.read_line(&mut line).unwrap();
        // peyk ping ADDRESS sends requests to it
        let address = line.split_whitespace().nth(2).unwrap().to_owned();
        (Server { child, out }, address)
    }

    /// Interrupts it as Ctrl-C does; gives what it still says.
    fn interrupt(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let deadline = Instant::now() + Duration::from_secs(5);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the server did not stop");
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(status.success(), "{status}");
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        rest
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn ping_counts_its_round_trips_and_serve_stops_cleanly() {
    let (server, address) = Server::start("127.0.0.1:4000");
    let output = crate::common::run(&["ping", &address, "--count", "5", "--interval", "1ms"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text.lines().filter(|l| l.starts_with("100 bytes from")).count(), 5, "{text}");
    assert!(text.contains("5 requests, 5 answered, 0 lost (0.0 %)"), "{text}");
    assert!(text.contains("median"), "{text}");
    assert!(server.interrupt().contains("stopped after 5 requests"));
}

#[test]
fn ping_takes_long_messages_over_ipv6_and_can_be_quiet() {
    let (_server, address) = Server::start("[::1]:4000");
    let output =
        crate::common::run(&["ping", &address, "-c", "3", "-i", "0", "--size", "1000000", "--quiet"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.contains("3 answered"), "{text}");
}

#[test]
fn ping_says_why_there_is_no_response() {
    let output =
        crate::common::peyk(&["ping", "127.0.0.1:4000/9", "-c", "1", "-W", "500ms"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("1 lost (100.0 %)"), "{text}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no response"));
}

#[test]
fn a_capture_of_ping_decodes_to_its_packets() {
    let (_server, address) = Server::start("127.0.0.1:4000");
    let file = crate::common::path("ping.pcapng");
    let file = file.to_str().unwrap();
    crate::common::run(&["ping", &address, "-c", "2", "-i", "0", "--quiet", "--capture", file]);
    let port = address.rsplit('/').next().unwrap();
    let output = crate::common::run(&["decode", file, "--udp-port", port]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let data = |side: &str| text.lines().filter(|l| l.contains(" DATA ") && l.contains(side)).count();
    assert_eq!((data(" client,"), data(" server,")), (2, 2), "{text}");
}
