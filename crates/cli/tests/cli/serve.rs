//! `peyk serve`, `peyk ping` and `peyk stat` with each other.

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
        Server::start_with(bind, &[])
    }

    fn start_with(bind: &str, flags: &[&str]) -> (Server, String) {
        let mut child = crate::common::peyk(&["serve", "--bind", bind, "--udp-port", "0"])
            .args(flags)
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

#[test]
fn stat_shows_each_shard_as_lines_json_and_for_prometheus() {
    let socket = crate::common::path("stat.sock");
    let at = socket.to_str().unwrap();
    let (server, address) = Server::start_with("127.0.0.1:4000", &["--shards", "2", "--export", at]);
    crate::common::run(&["ping", &address, "-c", "300", "-i", "0", "--quiet"]);
    let stat = |flags: &[&str]| {
        let output = crate::common::run(&[&["stat", at, "--interval", "300ms"], flags].concat());
        String::from_utf8(output.stdout).unwrap()
    };
    // A second one cannot export there, and says nothing of serving.
    let mut second = crate::common::peyk(&["serve", "--bind", "127.0.0.1:4000", "--udp-port", "0"]);
    second.args(["--export", at]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut second = second.spawn().unwrap();
    let mut said = String::new();
    BufReader::new(second.stdout.take().unwrap()).read_line(&mut said).unwrap();
    // If it serves after all.
    let _ = second.kill();
    let output = second.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*said), (Some(1), ""));
    assert!(String::from_utf8_lossy(&output.stderr).contains("address in use"));

    let json: serde_json::Value = serde_json::from_str(&stat(&["--count", "1", "--json"])).unwrap();
    let requests =
        |part: &serde_json::Value| part["numbers"]["homa_requests_received_total"].as_u64().unwrap();
    let shards = json["shards"].as_array().unwrap();
    assert_eq!((shards.len(), requests(&json["total"])), (2, 300));
    assert_eq!(shards.iter().map(requests).sum::<u64>(), 300);
    assert!(json["seconds"].as_f64().unwrap() >= 0.3);
    let rates = &json["total"]["per_second"];
    assert!(rates["homa_requests_received_total"].is_f64() && rates["usage_sockets"].is_null(), "{rates}");
    assert_eq!(json["info"]["shards"], "2");

    let lines = stat(&["--count", "2"]);
    assert_eq!(lines.matches("requests received /s").count(), 2, "{lines}");
    assert!(lines.contains("shard 0") && lines.contains("shard 1"), "{lines}");
    let text = stat(&["--prometheus"]);
    let total = |line: &&str| line.starts_with("peyk_homa_requests_received_total{");
    let values =
        text.lines().filter(total).map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
    assert_eq!(values.sum::<u64>(), 300, "{text}");

    server.interrupt();
    assert!(!socket.exists(), "the socket is gone with its server");
    let output = crate::common::peyk(&["stat", at, "--count", "1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no stack exports its counters at"));
}
