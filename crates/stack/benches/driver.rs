//! The UDP driver against bare UDP sockets over loopback: round trips of 100 bytes with the same way of
//! waiting, small trains, and bulk. Rounds are interleaved; the ratio inside a round is what counts.
//!
//! Run with `cargo bench -p peyk-stack --bench driver [filter]`.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use peyk_homa::{PacketHeader, Path, Transmit};
use peyk_kevent::{Backend, Config, Spin, udp};
use peyk_sockbuf::Payload;
use peyk_stack::driver::udp::UdpDriver;
use peyk_stack::driver::{Driver, Received, Wait};

const ROUNDS: usize = 7;
const HEADER: [u8; 28] = [1; 28];
const PING: usize = 100;

fn main() {
    let filter = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or_default();
    let wanted = |name: &str| name.contains(&filter);
    println!("kernel and queue: {}", driver(Backend::Auto).caps());
    if wanted("sleep") {
        compare(
            "round trip asleep, 100 B, us",
            3000,
            bare_ping(false),
            &[("io_uring", ping(Backend::Uring, Spin::Sleep)), ("epoll", ping(Backend::Epoll, Spin::Sleep))],
        );
    }
    let adaptive = Spin::Adaptive { max: Duration::from_micros(50) };
    if wanted("spin") {
        compare(
            "round trip spinning, 100 B, us",
            20000,
            bare_ping(true),
            &[
                ("io_uring", ping(Backend::Uring, Spin::Spin)),
                ("epoll", ping(Backend::Epoll, Spin::Spin)),
                ("io_uring, adaptive", ping(Backend::Uring, adaptive)),
                ("epoll, adaptive", ping(Backend::Epoll, adaptive)),
            ],
        );
    }
    if wanted("train") {
        compare(
            "64 x 156 B sent and received by one thread, us",
            2000,
            bare_train(),
            &[
                ("io_uring", train(Backend::Uring, Spin::Sleep)),
                ("io_uring, spinning", train(Backend::Uring, Spin::Spin)),
                ("epoll", train(Backend::Epoll, Spin::Sleep)),
            ],
        );
    }
    for (size, name) in [(1400, "bulk1400"), (8900, "bulk9000")] {
        if wanted(name) {
            let title = format!("1 MB in packets of {size} B between threads, us");
            compare(
                &title,
                300,
                bare_bulk(size),
                &[
                    ("io_uring", bulk(Backend::Uring, Spin::Sleep, size)),
                    ("io_uring, spinning", bulk(Backend::Uring, Spin::Spin, size)),
                    ("epoll", bulk(Backend::Epoll, Spin::Sleep, size)),
                    ("epoll, spinning", bulk(Backend::Epoll, Spin::Spin, size)),
                ],
            );
        }
    }
}

/// Runs a number of operations and returns the median time of one.
type Run = Box<dyn Fn(usize) -> Duration>;

fn compare(title: &str, count: usize, bare: Run, others: &[(&str, Run)]) {
    println!("\n{title}");
    let mut floors = Vec::new();
    let mut times = vec![Vec::new(); others.len()];
    for _ in 0..ROUNDS {
        floors.push(bare(count).as_secs_f64() * 1e6);
        for (i, (_, run)) in others.iter().enumerate() {
            times[i].push(run(count).as_secs_f64() * 1e6);
        }
    }
    println!("  {:<24}{:>9.2}", "bare UDP", median(&floors));
    for ((name, _), times) in others.iter().zip(&times) {
        let ratios: Vec<f64> = times.iter().zip(&floors).map(|(t, f)| t / f).collect();
        println!("  {name:<24}{:>9.2}   x {:.2}", median(times), median(&ratios));
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn median_time(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Times `count` calls, after some to warm up.
fn time_each(count: usize, mut call: impl FnMut()) -> Duration {
    (0..count / 10).for_each(|_| call());
    let time = |call: &mut dyn FnMut()| {
        let start = Instant::now();
        call();
        start.elapsed()
    };
    median_time((0..count).map(|_| time(&mut call)).collect())
}

fn driver(backend: Backend) -> UdpDriver {
    let queue = Config { backend, ..Config::default() };
    UdpDriver::with_options(queue, udp::Options::default()).expect("a driver")
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn wait(spin: Spin) -> Wait {
    Wait::until(Instant::now() + Duration::from_secs(1)).spin(spin)
}

/// Runs `server` on the other CPU while `client` runs on this one.
fn two<R>(server: impl FnOnce(SocketReady, &AtomicBool) + Send, client: impl FnOnce(SocketAddr) -> R) -> R {
    let stop = AtomicBool::new(false);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || {
            pin(1);
            server(SocketReady(tell), stop);
        });
        pin(0);
        let result = client(told.recv().expect("the server's address"));
        stop.store(true, Ordering::Relaxed);
        result
    })
}

struct SocketReady(std::sync::mpsc::Sender<SocketAddr>);

fn pin(cpu: usize) {
    // Unpinned runs are valid too, only noisier.
    let _ = peyk_stack::driver::pin_to_cpu(cpu);
}

fn bare_receive(
    socket: &UdpSocket,
    buf: &mut [u8],
    spin: bool,
    stop: &AtomicBool,
) -> Option<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(buf) {
            Ok(got) => return Some(got),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if stop.load(Ordering::Relaxed) {
                    return None;
                }
                if spin {
                    std::hint::spin_loop();
                }
            }
            Err(e) => panic!("{e}"),
        }
    }
}

fn bare_socket(spin: bool) -> UdpSocket {
    let socket = UdpSocket::from(
        udp::bind(any(), &udp::Options { gro: false, ..Default::default() }).expect("bind").fd,
    );
    socket.set_nonblocking(spin).expect("mode");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("timeout");
    socket
}

fn bare_ping(spin: bool) -> Run {
    Box::new(move |count| {
        let server = |ready: SocketReady, stop: &AtomicBool| {
            let socket = bare_socket(spin);
            ready.0.send(socket.local_addr().expect("bound")).expect("client");
            let mut buf = [0; 2048];
            while let Some((n, from)) = bare_receive(&socket, &mut buf, spin, stop) {
                socket.send_to(&buf[..n], from).expect("send");
            }
        };
        two(server, |to| {
            let socket = bare_socket(spin);
            let (never, mut buf) = (AtomicBool::new(false), [0; 2048]);
            time_each(count, || {
                socket.send_to(&[7; PING], to).expect("send");
                bare_receive(&socket, &mut buf, spin, &never);
            })
        })
    })
}

/// Sends back whatever comes, until told to stop.
fn echo(backend: Backend, spin: Spin) -> impl FnOnce(SocketReady, &AtomicBool) + Send {
    move |ready, stop| {
        let mut driver = driver(backend);
        let (_, addr) = driver.open_local(any()).expect("bind");
        ready.0.send(addr).expect("client");
        let header = PacketHeader::copy_from(&HEADER);
        let mut replies = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let wait = Wait::until(Instant::now() + Duration::from_millis(100)).spin(spin);
            driver
                .poll(wait, &mut |r| {
                    if let Received::Packet { path, data } = r {
                        let payload = Payload::copy_from(&data[28..]);
                        replies.push(Transmit { path: *path, priority: 0, header, payload });
                    }
                })
                .expect("poll");
            replies.drain(..).for_each(|r| driver.send(&r.as_out()));
            driver.flush();
        }
    }
}

fn ping(backend: Backend, spin: Spin) -> Run {
    Box::new(move |count| {
        two(echo(backend, spin), |remote| {
            let mut driver = driver(backend);
            let (local, _) = driver.open_local(any()).expect("bind");
            let path = Path { remote, local };
            let header = PacketHeader::copy_from(&HEADER);
            time_each(count, || {
                let payload = Payload::copy_from(&[7; PING - 28]);
                driver.send(&Transmit { path, priority: 0, header, payload }.as_out());
                driver.flush();
                let mut got = 0;
                while got == 0 {
                    got = driver.poll(wait(spin), &mut |_| {}).expect("poll");
                }
            })
        })
    })
}

fn bare_train() -> Run {
    Box::new(|count| {
        let (a, b) = (bare_socket(true), bare_socket(true));
        let to = b.local_addr().expect("bound");
        let mut buf = [0; 2048];
        time_each(count / 10, || {
            for _ in 0..64 {
                a.send_to(&[7; 156], to).expect("send");
            }
            for _ in 0..64 {
                b.recv_from(&mut buf).expect("receive");
            }
        })
    })
}

fn train(backend: Backend, spin: Spin) -> Run {
    Box::new(move |count| {
        let (mut a, mut b) = (driver(backend), driver(backend));
        let (local, _) = a.open_local(any()).expect("bind");
        let (_, remote) = b.open_local(any()).expect("bind");
        let path = Path { remote, local };
        let header = PacketHeader::copy_from(&HEADER);
        time_each(count, || {
            for _ in 0..64 {
                a.send(
                    &Transmit { path, priority: 0, header, payload: Payload::copy_from(&[7; 128]) }.as_out(),
                );
            }
            a.flush();
            let mut got = 0;
            while got < 64 {
                got += b.poll(wait(spin), &mut |_| {}).expect("poll");
            }
        })
    })
}

const MB: usize = 1_000_000;

fn bare_bulk(size: usize) -> Run {
    Box::new(move |count| {
        let server = |ready: SocketReady, stop: &AtomicBool| {
            let socket = bare_socket(true);
            ready.0.send(socket.local_addr().expect("bound")).expect("client");
            let (mut buf, mut bytes) = ([0; 65536], 0);
            while let Some((n, from)) = bare_receive(&socket, &mut buf, true, stop) {
                bytes += n;
                if bytes >= MB {
                    bytes = 0;
                    socket.send_to(b"done", from).expect("send");
                }
            }
        };
        two(server, |to| {
            let socket = bare_socket(true);
            let (message, never, mut buf) = (vec![7; MB], AtomicBool::new(false), [0; 2048]);
            time_each(count / 4, || {
                for chunk in message.chunks(size) {
                    socket.send_to(chunk, to).expect("send");
                }
                bare_receive(&socket, &mut buf, true, &never);
            })
        })
    })
}

fn bulk(backend: Backend, spin: Spin, size: usize) -> Run {
    Box::new(move |count| {
        let server = move |ready: SocketReady, stop: &AtomicBool| {
            let mut driver = driver(backend);
            let (_, addr) = driver.open_local(any()).expect("bind");
            ready.0.send(addr).expect("client");
            let header = PacketHeader::copy_from(&HEADER);
            let (mut bytes, mut reply) = (0, None);
            while !stop.load(Ordering::Relaxed) {
                let wait = Wait::until(Instant::now() + Duration::from_millis(100)).spin(spin);
                driver
                    .poll(wait, &mut |r| {
                        if let Received::Packet { path, data } = r {
                            bytes += data.len() - HEADER.len();
                            if bytes >= MB {
                                bytes = 0;
                                reply = Some(Transmit {
                                    path: *path,
                                    priority: 7,
                                    header,
                                    payload: Payload::new(),
                                });
                            }
                        }
                    })
                    .expect("poll");
                reply.take().into_iter().for_each(|r| driver.send(&r.as_out()));
                driver.flush();
            }
        };
        two(server, |remote| {
            let mut driver = driver(backend);
            let (local, _) = driver.open_local(any()).expect("bind");
            let path = Path { remote, local };
            let header = PacketHeader::copy_from(&HEADER);
            let message = Payload::from(vec![7; MB]);
            let step = size - HEADER.len();
            time_each(count, || {
                for start in (0..MB).step_by(step) {
                    let payload = message.slice(start..MB.min(start + step));
                    driver.send(&Transmit { path, priority: 0, header, payload }.as_out());
                }
                driver.flush();
                let mut got = 0;
                while got == 0 {
                    got = driver.poll(wait(spin), &mut |_| {}).expect("poll");
                }
            })
        })
    })
}
