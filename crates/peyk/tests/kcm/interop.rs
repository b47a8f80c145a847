//! Servers of Debian on the other side: their bytes are framed right, and their clients are served.

use super::*;
use peyk::kcm::framer::{Side, by_name};
use peyk::kcm::{Config, Mux, Order, Relay, RelayOptions};
use std::process::{Child, Command, Stdio};

/// A server process; dropping it ends it.
struct Server {
    child: Child,
    addr: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a server at a free port; says loudly when it is not installed.
fn start(program: &str, args: impl FnOnce(u16) -> Vec<String>) -> Option<Server> {
    let port = TcpListener::bind(loopback()).unwrap().local_addr().unwrap().port();
    let spawned = Command::new(program)
        .args(args(port))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .stdin(Stdio::null())
        .spawn();
    let Ok(child) = spawned else {
        eprintln!("!!! SKIPPED: {program} is not installed");
        return None;
    };
    let server = Server { child, addr: SocketAddr::from(([127, 0, 0, 1], port)) };
    until("the server answers", || TcpStream::connect(server.addr).is_ok());
    Some(server)
}

/// Sends requests and receives so many replies, framed by the framer of this name.
fn talk(server: &Server, name: &str, requests: &[&[u8]], replies: usize) -> Vec<Vec<u8>> {
    let (mux, socket) = Mux::open(Config { order: Order::Any, ..Config::default() }).unwrap();
    mux.connect(server.addr, by_name(name, Side::Replies).unwrap()).unwrap();
    for request in requests {
        peyk::block_on(socket.send(request.to_vec())).unwrap();
    }
    (0..replies).map(|_| socket.recv_timeout(PATIENCE).unwrap().to_vec()).collect()
}

#[test]
fn redis__replies_are_framed() {
    let args = |port: u16| {
        ["--save", "", "--port"].map(str::to_owned).into_iter().chain([port.to_string()]).collect()
    };
    let Some(server) = start("redis-server", args) else { return };
    let requests: [&[u8]; 6] = [
        b"PING\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\r\nb\r\n",
        b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        b"*2\r\n$3\r\nGET\r\n$1\r\nx\r\n",
        b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n",
        b"*3\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n$1\r\n*\r\n",
    ];
    let replies = talk(&server, "resp", &requests, 6);
    assert_eq!(replies[0], b"+PONG\r\n");
    assert_eq!(replies[1], b"+OK\r\n");
    assert_eq!(replies[2], b"$4\r\na\r\nb\r\n");
    assert_eq!(replies[3], b"$-1\r\n");
    assert_eq!(replies[4][0], b'%', "RESP3 answers HELLO with a map");
    assert!(replies[5].starts_with(b"%") && replies[5].len() > 1000);
}

#[test]
fn memcached__replies_are_framed() {
    let args = |port: u16| {
        ["-u", "root", "-l", "127.0.0.1", "-p"]
            .map(str::to_owned)
            .into_iter()
            .chain([port.to_string()])
            .collect()
    };
    let Some(server) = start("memcached", args) else { return };
    let requests: [&[u8]; 4] = [b"set k 0 0 5\r\nEND\r\n\r\n", b"get k\r\n", b"mg k v\r\n", b"version\r\n"];
    let replies = talk(&server, "memcached", &requests, 5);
    assert_eq!(
        replies[..4],
        [&b"STORED\r\n"[..], b"VALUE k 0 5\r\nEND\r\n\r\n", b"END\r\n", b"VA 5\r\nEND\r\n\r\n"]
            .map(<[u8]>::to_vec)
    );
    assert!(replies[4].starts_with(b"VERSION "));
}

#[test]
fn memcached__binary_replies_are_framed() {
    let args = |port: u16| {
        ["-u", "root", "-l", "127.0.0.1", "-p"]
            .map(str::to_owned)
            .into_iter()
            .chain([port.to_string()])
            .collect()
    };
    let Some(server) = start("memcached", args) else { return };
    let mut version = [0u8; 24];
    (version[0], version[1]) = (0x80, 0x0b);
    let replies = talk(&server, "memcached-binary", &[&version, &version], 2);
    assert!(replies.iter().all(|reply| reply[0] == 0x81 && reply.len() > 24));
}

#[test]
fn mosquitto__packets_are_framed() {
    let args = |port: u16| vec!["-p".to_owned(), port.to_string()];
    let Some(server) = start("mosquitto", args) else { return };
    let requests: [&[u8]; 4] = [
        b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01a",
        b"\x82\x08\0\x01\0\x03t/x\0",
        b"\x30\x07\0\x03t/xhi",
        b"\xc0\0",
    ];
    let mut replies = talk(&server, "mqtt", &requests, 4);
    assert_eq!(replies.remove(0), b"\x20\x02\0\0");
    assert_eq!(replies, [&b"\x90\x03\0\x01\0"[..], b"\x30\x07\0\x03t/xhi", b"\xd0\0"].map(<[u8]>::to_vec));
}

/// An nginx that serves one file of a hundred thousand bytes, and where it keeps it. `listens` is what else it is
/// told about its socket.
fn nginx(name: &str, listens: &str) -> Option<(Server, Folder)> {
    let folder = Folder::new(name);
    std::fs::write(folder.0.join("index.html"), vec![b'x'; 100_000]).unwrap();
    let conf = folder.0.join("nginx.conf");
    let at = folder.0.display().to_string();
    let args = |port: u16| {
        let text = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/log; events {{}}\n\
             http {{ access_log off; server {{ listen 127.0.0.1:{port}{listens}; root {at}; }} }}\n"
        );
        std::fs::write(&conf, text).unwrap();
        vec!["-p".to_owned(), at.clone(), "-c".to_owned(), conf.display().to_string()]
    };
    Some((start("nginx", args)?, folder))
}

/// A folder for a test; removed with it.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("peyk-kcm-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn nginx__http1_responses_are_framed() {
    let Some((server, _folder)) = nginx("http1", "") else { return };
    let get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let replies = talk(&server, "http1", &[get, b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n", get], 3);
    assert!(replies[0].starts_with(b"HTTP/1.1 200 OK") && replies[0].ends_with(&[b'x'; 100_000]));
    assert!(replies[1].starts_with(b"HTTP/1.1 404"));
    assert_eq!(replies[2].len(), replies[0].len());
}

#[test]
fn nginx__http2_frames_are_framed() {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    let Some((server, _folder)) = nginx("http2", " http2") else { return };
    // Preface; a window of 1 MiB for each stream and for the connection; GET / on streams 1 and 3.
    let get = |stream: u8| [&[0, 0, 6, HEADERS, 5, 0, 0, 0, stream][..], b"\x82\x84\x86\x41\x01x"].concat();
    let opening = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\x10\0\0",
        b"\0\0\x04\x08\0\0\0\0\0\0\x0f\0\0",
        &get(1),
        &get(3),
    ]
    .concat();
    let (mux, socket) = Mux::open(Config { order: Order::Any, ..Config::default() }).unwrap();
    mux.connect(server.addr, by_name("http2", Side::Replies).unwrap()).unwrap();
    peyk::block_on(socket.send(opening)).unwrap();
    let (mut bodies, mut kinds, mut ended) = ([0usize; 4], std::collections::HashSet::new(), 0);
    while ended < 2 {
        let frame = socket.recv_timeout(PATIENCE).unwrap();
        let length = usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2]);
        assert_eq!(frame.len(), 9 + length);
        kinds.insert(frame[3]);
        if frame[3] == DATA {
            assert!(frame[9..].iter().all(|byte| *byte == b'x'));
            bodies[usize::from(frame[8])] += length;
            ended += usize::from(frame[4] & 1);
        }
    }
    assert_eq!(bodies, [0, 100_000, 0, 100_000]);
    assert!([DATA, HEADERS, SETTINGS].iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
}

/// A PostgreSQL with a new database. Its processes refuse to be root's.
fn postgres() -> Option<(Server, Folder)> {
    let folder = Folder::new("postgres");
    let is_root = nix::unistd::Uid::effective().is_root();
    let user = nix::unistd::User::from_name("postgres").unwrap();
    let found = std::fs::read_dir("/usr/lib/postgresql").ok().and_then(|mut all| all.next());
    let (Some(Ok(found)), true) = (found, user.is_some() || !is_root) else {
        eprintln!("!!! SKIPPED: postgresql is not installed");
        return None;
    };
    let run = |program: &str| {
        let mut command = Command::new(found.path().join("bin").join(program));
        if let (true, Some(user)) = (is_root, &user) {
            std::os::unix::process::CommandExt::uid(&mut command, user.uid.as_raw());
            std::os::unix::process::CommandExt::gid(&mut command, user.gid.as_raw());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        command
    };
    if let (true, Some(user)) = (is_root, &user) {
        nix::unistd::chown(&folder.0, Some(user.uid), Some(user.gid)).unwrap();
    }
    let data = folder.0.join("data");
    let made = run("initdb").arg("-D").arg(&data).args(["-A", "trust", "-U", "peyk", "-N"]).status().unwrap();
    assert!(made.success(), "initdb: {made}");
    let port = TcpListener::bind(loopback()).unwrap().local_addr().unwrap().port();
    let child = run("postgres")
        .arg("-D")
        .arg(&data)
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-c", "unix_socket_directories="])
        .spawn()
        .unwrap();
    let server = Server { child, addr: SocketAddr::from(([127, 0, 0, 1], port)) };
    // Until it is up it refuses, in words, and hangs up.
    until("the server answers", || {
        let Ok(bare) = TcpStream::connect(server.addr) else { return false };
        bare.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut first = [0];
        (&bare).write_all(&startup()).and_then(|()| (&bare).read_exact(&mut first)).is_ok() && first == *b"R"
    });
    Some((server, folder))
}

/// PostgreSQL's first message of a connection.
fn startup() -> Vec<u8> {
    let text = b"\0\x03\0\0user\0peyk\0database\0postgres\0\0";
    [&(4 + text.len() as u32).to_be_bytes()[..], text].concat()
}

#[test]
fn postgres__messages_are_framed() {
    let Some((server, _folder)) = postgres() else { return };
    let query = |text: &str| {
        let length = (5 + text.len() as u32).to_be_bytes();
        [b"Q", &length[..], text.as_bytes(), b"\0"].concat()
    };
    let (mux, socket) = Mux::open(Config { order: Order::Any, ..Config::default() }).unwrap();
    mux.connect(server.addr, by_name("postgres", Side::Replies).unwrap()).unwrap();
    peyk::block_on(socket.send(startup())).unwrap();
    assert_eq!(socket.recv_timeout(PATIENCE).unwrap()[0], b'R');
    let rest = || {
        let mut all = Vec::new();
        while all.last().is_none_or(|message: &Vec<u8>| message[0] != b'Z') {
            all.push(socket.recv_timeout(PATIENCE).unwrap().to_vec());
        }
        all
    };
    let kinds = |all: &[Vec<u8>]| all.iter().map(|message| char::from(message[0])).collect::<String>();
    let greeting = rest();
    assert!(kinds(&greeting).trim_start_matches('S').eq("KZ"), "{}", kinds(&greeting));
    // Rows of all lengths, long ones included; the second query fails.
    let long = "SELECT repeat('x', n * n * 7) FROM generate_series(0, 99) AS n";
    peyk::block_on(socket.send([query(long), query("SELECT nothing"), query("")].concat())).unwrap();
    let rows = rest();
    assert_eq!(kinds(&rows), format!("T{}CZ", "D".repeat(100)));
    for (n, row) in rows[1..101].iter().enumerate() {
        assert_eq!(row.len(), 1 + 4 + 2 + 4 + n * n * 7);
    }
    assert_eq!((kinds(&rest()), kinds(&rest())), ("EZ".to_owned(), "IZ".to_owned()));
    // Asked for encryption, it answers with one byte.
    let bare = TcpStream::connect(server.addr).unwrap();
    bare.set_read_timeout(Some(PATIENCE)).unwrap();
    write_all(&bare, b"\0\0\0\x08\x04\xd2\x16\x2f");
    let (asked, inbox) = Mux::open(Config { order: Order::Any, ..Config::default() }).unwrap();
    asked.attach(bare, Box::new(peyk::kcm::framer::Postgres::server(true))).unwrap();
    assert_eq!(&inbox.recv_timeout(PATIENCE).unwrap()[..], b"N");
    peyk::block_on(inbox.send(startup())).unwrap();
    assert_eq!(inbox.recv_timeout(PATIENCE).unwrap()[0], b'R');
}

/// A Redis behind the relay, and the address of the relay.
fn relayed_redis() -> Option<(Server, Relay)> {
    let args = |port: u16| {
        ["--save", "", "--port"].map(str::to_owned).into_iter().chain([port.to_string()]).collect()
    };
    let server = start("redis-server", args)?;
    let framers = (by_name("resp", Side::Requests).unwrap(), by_name("resp", Side::Replies).unwrap());
    let relay = Relay::start(RelayOptions {
        listen: loopback(),
        backends: vec![server.addr; 3],
        framers,
        is_silent: |request| request.trim_ascii().is_empty(),
        config: Config::default(),
    })
    .unwrap();
    Some((server, relay))
}

#[test]
fn relay__many_clients_of_redis_get_their_own_answers_in_order() {
    let Some((_server, relay)) = relayed_redis() else { return };
    std::thread::scope(|scope| {
        for client in 0..8 {
            let addr = relay.local_addr();
            scope.spawn(move || {
                let tcp = TcpStream::connect(addr).unwrap();
                tcp.set_read_timeout(Some(PATIENCE)).unwrap();
                // Each answer tells which request it belongs to: ECHO.
                let (mut requests, mut expected) = (Vec::new(), Vec::new());
                for i in 0..500 {
                    let word = format!("client {client} request {i}");
                    let bulk = format!("${}\r\n{word}\r\n", word.len());
                    requests.extend_from_slice(format!("*2\r\n$4\r\nECHO\r\n{bulk}").as_bytes());
                    expected.extend_from_slice(bulk.as_bytes());
                }
                write_all(&tcp, &requests);
                let mut got = vec![0; expected.len()];
                (&tcp).read_exact(&mut got).unwrap();
                assert!(got == expected, "answers of client {client}");
            });
        }
    });
    assert_eq!(relay.failed(), 0);
}

#[test]
fn relay__redis_benchmark_completes() {
    let Some((_server, relay)) = relayed_redis() else { return };
    let port = relay.local_addr().port().to_string();
    let ran = Command::new("redis-benchmark")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-n",
            "5000",
            "-c",
            "20",
            "-P",
            "8",
            "-t",
            "ping,set,get,incr,lpush",
        ])
        .output();
    let Ok(output) = ran else {
        eprintln!("!!! SKIPPED: redis-benchmark is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("requests per second") && !said.to_lowercase().contains("error"), "{said}");
    let [front, back] = relay.snapshots();
    assert_eq!(front.mux.rx_msgs, back.mux.rx_msgs, "as many answers as requests");
    assert!(front.mux.rx_msgs >= 5 * 5000);
}

#[test]
fn relay__a_lost_backend_disconnects_who_waits_and_comes_back() {
    let Some((server, relay)) = relayed_redis() else { return };
    let connect = || {
        let tcp = TcpStream::connect(relay.local_addr()).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp
    };
    let waits = connect();
    // Blocks for ever at the server.
    write_all(&waits, b"*3\r\n$5\r\nBLPOP\r\n$4\r\nnone\r\n$1\r\n0\r\n");
    until("the request is at the server", || relay.snapshots()[1].mux.tx_msgs == 1);
    // All connections of clients are cut by the server, this one's included.
    let direct = TcpStream::connect(server.addr).unwrap();
    write_all(&direct, b"CLIENT KILL TYPE normal SKIPME yes\r\n");
    assert!(!matches!((&waits).read(&mut [0; 16]), Ok(count) if count > 0));
    assert_eq!(relay.failed(), 1);
    until("the backends are back", || relay.snapshots()[1].psocks.len() == 3);
    let again = connect();
    write_all(&again, b"PING\r\n");
    let mut pong = [0; 7];
    (&again).read_exact(&mut pong).unwrap();
    assert_eq!(&pong, b"+PONG\r\n");
}

#[test]
fn bpf__an_object_of_clang_delineates_a_thrift_stream() {
    use peyk::kcm::bpf::{BpfFramer, Limits, Program};
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../kcm/tests/bpf/");
    let compiled = Command::new("clang")
        .args(["-target", "bpf", "-O2", "-c", &format!("{folder}thrift.c"), "-o", "-"])
        .output()
        .ok()
        .filter(|output| output.status.success());
    let object = compiled.map(|output| output.stdout).unwrap_or_else(|| {
        eprintln!("!!! SKIPPED: no clang for bpf; the object kept in the repository is used instead");
        std::fs::read(format!("{folder}thrift.v3.o")).unwrap()
    });
    let program = Program::from_elf(&object, Limits::default()).unwrap();
    let (mux, socket) = Mux::open(Config::default()).unwrap();
    let (near, far) = pair();
    mux.attach(near, Box::new(BpfFramer::new(program, Spread::Any))).unwrap();
    let bodies: Vec<Vec<u8>> = (0..200).map(|i| vec![i as u8; i * 7]).collect();
    write_all(&far, &bodies.iter().flat_map(|body| msg(body)).collect::<Vec<u8>>());
    for body in &bodies {
        assert_eq!(socket.recv_timeout(PATIENCE).unwrap()[4..], body[..]);
    }
}
