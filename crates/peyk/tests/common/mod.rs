//! What the tests share: the worlds they run in, servers, contents, and waiting without a clock
//! that decides.

#![allow(dead_code)] // each test binary uses a part of it

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use peyk::homa::{Addr, Socket};
use peyk::{Backend, Config, Stack};

/// Ticks after which a stack takes a silent peer for dead, unless told otherwise.
pub const DEFAULT_TIMEOUT: u32 = 1000;

/// Shards of the stacks that tests start, unless they say otherwise: `PEYK_TEST_SHARDS`, or 1.
pub fn shards() -> usize {
    std::env::var("PEYK_TEST_SHARDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Under which kernel interface and address family a test runs.
#[derive(Debug, Clone, Copy)]
pub struct World {
    pub backend: Backend,
    pub ip: IpAddr,
}

impl World {
    pub const URING_V4: World = World { backend: Backend::Uring, ip: IpAddr::V4(Ipv4Addr::LOCALHOST) };
    pub const URING_V6: World = World { backend: Backend::Uring, ip: IpAddr::V6(Ipv6Addr::LOCALHOST) };
    pub const EPOLL_V4: World = World { backend: Backend::Epoll, ip: IpAddr::V4(Ipv4Addr::LOCALHOST) };
    pub const EPOLL_V6: World = World { backend: Backend::Epoll, ip: IpAddr::V6(Ipv6Addr::LOCALHOST) };

    /// Whether this machine offers it.
    pub fn is_available(self) -> bool {
        let config = Config::default().with_backend(self.backend);
        match Stack::start(config) {
            Ok(_) => true,
            Err(e) if self.backend == Backend::Uring => {
                println!("SKIPPED: no io_uring here: {e}");
                false
            }
            Err(e) => panic!("epoll does not work here: {e}"),
        }
    }

    /// A configuration on free UDP ports, patient enough for a machine that is busy with other
    /// tests.
    pub fn config(self) -> Config {
        let mut config = Config::default().with_backend(self.backend).with_udp_port(0);
        config.homa.timeout_ticks = 5 * DEFAULT_TIMEOUT;
        // As much for each shard as one alone has: tests keep many responses of one socket.
        let memory = config.receive_memory * shards();
        config.with_shards(shards()).with_receive_memory(memory)
    }

    pub fn stack(self) -> Stack {
        Stack::start(self.config()).unwrap()
    }

    pub fn stack_with(self, change: impl FnOnce(&mut Config)) -> Stack {
        let mut config = self.config();
        change(&mut config);
        Stack::start(config).unwrap()
    }

    /// Where to bind: loopback at this Homa port.
    pub fn at(self, port: u16) -> Addr {
        Addr::new(self.ip, port)
    }

    pub fn bind(self, stack: &Stack, port: u16) -> (Socket, Addr) {
        let socket = Socket::bind(stack, self.at(port)).unwrap();
        let addr = socket.local_addr().unwrap();
        (socket, addr)
    }
}

/// Makes of each function `name(World)` one test for each world.
#[macro_export]
macro_rules! in_every_world {
    ($($name:ident),* $(,)?) => {
        $crate::in_world!(uring_v4 URING_V4 $($name)*);
        $crate::in_world!(uring_v6 URING_V6 $($name)*);
        $crate::in_world!(epoll_v4 EPOLL_V4 $($name)*);
        $crate::in_world!(epoll_v6 EPOLL_V6 $($name)*);
    };
}

/// See [`in_every_world`].
#[macro_export]
macro_rules! in_world {
    ($module:ident $world:ident $($name:ident)*) => {
        mod $module {
            $(
                #[test]
                fn $name() {
                    let world = $crate::common::World::$world;
                    if world.is_available() {
                        super::$name(world);
                    }
                }
            )*
        }
    };
}

/// Longest time anything may take before it counts as hanging.
pub const HANG: Duration = Duration::from_secs(60);

/// Waits until `done` gives something; panics with what `state` says if that never happens.
pub fn eventually<T>(state: impl Fn() -> String, mut done: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + HANG;
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < until, "never happened; {}", state());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until nothing is under way in a stack and all its memory is at home.
pub fn until_idle(stack: &Stack) {
    let state = || match stack.stats() {
        Ok(stats) => format!("{:?} {:?}", stats.usage, stats.app),
        Err(e) => e.to_string(),
    };
    eventually(state, || stack.stats().unwrap().is_idle().then_some(()));
}

/// Waits for a future, but not for ever.
pub fn wait<F: Future>(future: F) -> F::Output {
    peyk_stack::block_on_until(future, Some(Instant::now() + HANG)).expect("it hangs")
}

/// `len` bytes that differ by `seed`.
pub fn contents(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A thread that returns every request as its response, until the socket ends.
pub fn echo(socket: Socket) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        peyk::block_on(async {
            let mut answered = 0;
            while let Ok(request) = socket.recv().await {
                let (message, responder) = request.into_parts();
                if responder.reply(message).await.is_err() {
                    break;
                }
                answered += 1;
            }
            answered
        })
    })
}
