//! What the user may choose about a stack. Every limit has its default here or in
//! [`peyk_homa::Config`].

use std::path::PathBuf;
use std::time::Duration;

pub use peyk_kevent::Backend;

use crate::addr::DEFAULT_UDP_PORT;
use crate::driver::fault::Faults;

/// How a shard waits when it has nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poll {
    /// Sleep in the kernel at once: least CPU, but each packet pays for a wake-up. Only in the
    /// middle of a long message, when packets are sure to be on their way, it looks for up to
    /// 50 us first.
    Sleep,
    /// Never sleep: least latency, one CPU always busy.
    Spin,
    /// Poll for a while before sleeping: longer after polling paid off, shorter after it did not.
    Adaptive {
        /// Longest time to poll before going to sleep.
        max: Duration,
    },
}

/// Configuration of a [`Stack`](crate::Stack).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Name of the shards' threads; those after the first have their number appended.
    pub name: String,
    /// Which kernel interface carries the I/O; [`Backend::Auto`] takes io_uring where it works.
    pub backend: Backend,
    /// How the shard waits.
    pub poll: Poll,
    /// Shards, each with a thread, endpoint and memory of its own; at least 1, at most 255. More
    /// than the machine has CPUs works, but gains nothing.
    pub shards: usize,
    /// Pins the shards' threads to these CPUs, in turn; where they like if there are none.
    pub cpus: Vec<usize>,
    /// UDP port that carries the Homa packets of bound sockets; 0 takes any free port.
    pub udp_port: u16,
    /// Memory for messages being received or not yet dropped by the application, in bytes; rounded
    /// up to pages of 64 KiB. Touched only as it is needed. Divided evenly among the shards; a socket
    /// that only makes requests lives on one of them.
    ///
    /// An application that keeps more than this gets no further messages until it drops some; if it
    /// drops none for [`memory_timeout_ticks`](peyk_homa::Config::memory_timeout_ticks), because it
    /// waits for them first, its calls fail.
    pub receive_memory: usize,
    /// Largest IP packet to use even where the route would allow more, in bytes.
    pub max_mtu: u32,
    /// Submissions that may wait between the application and the shard.
    pub submissions: usize,
    /// Calls per socket that may wait for send memory.
    pub parked_calls: usize,
    /// Parameters of the protocol.
    pub homa: peyk_homa::Config,
    /// Packets to lose or spoil on purpose, for tests and demonstrations.
    pub faults: Option<Faults>,
    /// Writes every packet sent and received to this pcapng file.
    pub capture: Option<PathBuf>,
    /// Seed of ids and other random choices; `None` takes one from the operating system.
    pub seed: Option<u64>,
}

impl Config {
    /// Carries the Homa packets of bound sockets over this UDP port; 0 takes any free one, which
    /// is part of [`Socket::local_addr`](crate::Socket::local_addr).
    #[must_use]
    pub fn with_udp_port(self, udp_port: u16) -> Config {
        Config { udp_port, ..self }
    }

    /// Uses this kernel interface.
    #[must_use]
    pub fn with_backend(self, backend: Backend) -> Config {
        Config { backend, ..self }
    }

    /// Waits in this way when there is nothing to do.
    #[must_use]
    pub fn with_poll(self, poll: Poll) -> Config {
        Config { poll, ..self }
    }

    /// Runs this many shards.
    #[must_use]
    pub fn with_shards(self, shards: usize) -> Config {
        Config { shards, ..self }
    }

    /// Runs the shards on these CPUs only, one after the other.
    #[must_use]
    pub fn with_cpus(self, cpus: impl Into<Vec<usize>>) -> Config {
        Config { cpus: cpus.into(), ..self }
    }

    /// Runs the first shard, and so all if there is one, on this CPU only.
    #[must_use]
    pub fn with_cpu(self, cpu: usize) -> Config {
        self.with_cpus([cpu])
    }

    /// Takes this many bytes of memory for messages received.
    #[must_use]
    pub fn with_receive_memory(self, bytes: usize) -> Config {
        Config { receive_memory: bytes, ..self }
    }

    /// Writes all packets to this pcapng file.
    #[must_use]
    pub fn with_capture(self, path: impl Into<PathBuf>) -> Config {
        Config { capture: Some(path.into()), ..self }
    }

    /// Loses or spoils packets on purpose.
    #[must_use]
    pub fn with_faults(self, faults: Faults) -> Config {
        Config { faults: Some(faults), ..self }
    }

    /// Uses these parameters of the protocol.
    #[must_use]
    pub fn with_homa(self, homa: peyk_homa::Config) -> Config {
        Config { homa, ..self }
    }
}

impl Default for Config {
    fn default() -> Config {
        // HomaModule gives up after 100 ms without progress, from inside the kernel. A process
        // in user space can be off the CPU for longer than that on a busy machine.
        // So long a time-out bears no RESEND every 5 ms: thousands of RPCs that wait for a host that
        // is gone, or has too much to do, would keep it busy with nothing else.
        let homa = peyk_homa::Config {
            timeout_ticks: 1000,
            resend_interval_max: 80,
            ..peyk_homa::Config::default()
        };
        Config {
            name: "peyk".into(),
            backend: Backend::Auto,
            poll: Poll::Adaptive { max: Duration::from_micros(100) },
            shards: 1,
            cpus: Vec::new(),
            udp_port: DEFAULT_UDP_PORT,
            receive_memory: 64 << 20,
            max_mtu: 9000,
            submissions: 4096,
            parked_calls: 4096,
            homa,
            faults: None,
            capture: None,
            seed: None,
        }
    }
}
