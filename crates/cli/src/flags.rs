//! The command line: every command with its flags and help, and the values flags may have.

mod cluster;
mod sim;
mod testbed;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use peyk_sim::workload::Name;

use crate::{command::stat::SHORTEST, transport::tcp::Waiting};

pub use cluster::{Cluster, ClusterNode};
pub use sim::{Sim, SimCheck, SimCommand, SimJob, SimJobs, SimLoad, SimMerge, SimOutput, SimRun};
pub use testbed::{Check, Create, Destroy, Show, Testbed, TestbedAgent, TestbedCommand};

/// A network stack in user space whose unit is the message.
///
/// Peyk speaks Homa: a client sends a request of up to a megabyte, the server sends one response. There are no
/// connections, and a short message never waits behind a long one.
#[derive(Parser, Debug)]
#[command(
    name = "peyk",
    version,
    after_help = "EXAMPLES:\n  peyk demo                      compare Homa with TCP on this machine, in under a minute\n  \
                  peyk serve & peyk ping localhost\n  peyk bench rpc --quick         cost of an RPC beside bare UDP and TCP\n  \
                  peyk sim --quick               slowdown by message size on 144 simulated hosts\n  \
                  peyk decode capture.pcapng     the Homa packets of a capture, as text"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Compare Homa with kernel TCP under the same load, on this machine.
    Demo(Demo),
    /// Measure the cost of RPCs.
    #[command(subcommand)]
    Bench(Bench),
    /// Answer every message with itself until interrupted.
    Serve(Serve),
    /// Send requests to an echo server and print how long each takes.
    Ping(Ping),
    /// Show counters and rates of a running stack, by shard.
    Stat(Stat),
    /// Print the Homa packets of a capture, one line each.
    Decode(Decode),
    // Described by its flags, whose longer text a comment here would hide.
    Sim(Box<Sim>),
    /// Balance whole messages of TCP clients over connections to backends.
    Kcm(Kcm),
    // Like `Sim`.
    Testbed(Testbed),
    // Like `Sim`.
    Cluster(Box<Cluster>),
    // Like `Sim`.
    ClusterNode(ClusterNode),
    /// A process in a host that helps to check a testbed.
    #[command(hide = true)]
    TestbedAgent(TestbedAgent),
    /// A measuring process (started by demo and bench).
    #[command(hide = true)]
    DemoNode,
    /// A server of static files (started by bench kevent).
    #[command(hide = true)]
    HttpNode(HttpNode),
    /// The clients of a case of `peyk bench kcm`: 99th percentile of the latency on standard output.
    #[command(hide = true)]
    KcmClients(KcmClients),
}

/// Compare Homa with kernel TCP under the same load, on this machine.
///
/// Sends the messages of a workload at the same random moments over each transport in turn: client and server are
/// processes of their own, connected through the loopback interface. Every message is numbered and hashed; both
/// sides check it. Prints by how much each transport is slower than the best unloaded round trip of the same size,
/// and writes a report to look at.
///
/// The offered load is the same for all transports: a share of the capacity of the one with the lowest, measured
/// first. Latency counts from the moment a message was due.
#[derive(Args, Debug)]
#[command(
    after_help = "EXAMPLES:\n  peyk demo --quick\n  peyk demo --workload w2 --load 80% --html w2.html\n  \
                        peyk demo --drop 1% --hold 2000 --json result.json\n  \
                        peyk demo --transports homa,tcp1 --duration 30s --seed 7"
)]
pub struct Demo {
    /// Message sizes: w1 is the shortest, w5 the longest.
    #[arg(long, default_value = "w4", value_name = "w1..w5")]
    pub workload: Name,
    /// Transports to compare, in this order (tcp4: messages spread over four connections).
    #[arg(long, value_enum, value_delimiter = ',', default_value = "homa,tcp1,tcp4")]
    pub transports: Vec<DemoTransport>,
    /// Offered load, as a share of the lowest measured capacity.
    #[arg(long, value_parser = percent, default_value = "60%", value_name = "PERCENT")]
    pub load: f64,
    /// Time for which messages are sent over each transport.
    #[arg(long, value_parser = duration, value_name = "TIME", help_heading = "Measurement")]
    pub duration: Option<Duration>,
    /// Seed of sizes, arrivals and contents.
    #[arg(long, default_value_t = 1, help_heading = "Measurement")]
    pub seed: u64,
    /// Requests that stay open at the server during the whole run, besides the load.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=50_000), value_name = "N", help_heading = "Measurement")]
    pub hold: u32,
    /// Packets to lose on purpose, below Homa only.
    #[arg(long, value_parser = percent, default_value = "0%", value_name = "PERCENT", help_heading = "Measurement")]
    pub drop: f64,
    /// What an idle peer does, the same for all transports.
    #[arg(long, value_enum, default_value_t = Waiting::Block, help_heading = "Measurement")]
    pub waiting: Waiting,
    /// Use the IPv6 loopback address.
    #[arg(long, help_heading = "Measurement")]
    pub ipv6: bool,
    /// Done in less than a quarter of a minute, with rougher figures.
    #[arg(long)]
    pub quick: bool,
    /// Where to write the report.
    #[arg(long, default_value = "peyk-demo.html", value_name = "FILE", help_heading = "Output")]
    pub html: PathBuf,
    /// Also write the figures as JSON.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub json: Option<PathBuf>,
    /// Settings of the nodes.
    #[command(flatten)]
    pub nodes: Nodes,
}

/// What TCP is in a measurement over loopback.
#[derive(Args, Debug)]
pub struct Tcp {
    /// Leave TCP as this machine's default has it. Else, where that is allowed, the run gets a network namespace of its
    /// own in which TCP is CUBIC: timers are most of what a long response costs on loopback under BBR.
    #[arg(long)]
    pub system_tcp: bool,
}

/// Measurements of cost.
#[derive(Subcommand, Debug)]
pub enum Bench {
    /// Closed loop of RPCs of one size: Homa beside bare UDP and kernel TCP.
    Rpc(BenchRpc),
    Shards(BenchShards),
    /// The completion queue beside plain calls, epoll, the io-uring crate, tokio and nginx.
    Kevent(BenchKevent),
    /// KCM beside threads that own their connections: the cases K1 to K11.
    Kcm(BenchKcm),
}

/// The completion queue beside plain calls, epoll, the io-uring crate, tokio and nginx.
///
/// Each case runs its contestants in turns, round by round; figures are medians of the rounds, goals are compared
/// with the median of the ratios of the rounds. HTTP needs wrk, and nginx to compare with; what is not installed is
/// said to be absent.
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLES:\n  peyk bench kevent --json kevent.json\n  \
                        peyk bench kevent --quick --cases datagrams,posts")]
pub struct BenchKevent {
    /// What to measure.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "datagrams,waiting,submits,posts,files,streams,http"
    )]
    pub cases: Vec<KeventCase>,
    /// Rounds.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: Option<u32>,
    /// Where to put the files that are read and served; must be on a device for direct reads.
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
    /// Done in less than half a minute, with rougher figures.
    #[arg(long)]
    pub quick: bool,
    /// What TCP is.
    #[command(flatten)]
    pub tcp: Tcp,
    /// Also write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Cases of [`BenchKevent`].
#[derive(Copy, Clone, PartialEq, Eq, ValueEnum, Debug)]
pub enum KeventCase {
    /// Packet rates.
    Datagrams,
    /// What handing over an operation takes.
    Submits,
    /// Round trips by the way of waiting.
    Waiting,
    /// Handing something to another thread.
    Posts,
    /// Reads of 4 KiB.
    Files,
    /// CPU time for a gigabyte of TCP.
    Streams,
    /// Static files by wrk.
    Http,
}

/// Ten thousand clients of a server of `peyk bench kcm`: they have descriptors of their own.
#[derive(Args, Debug)]
pub struct KcmClients {
    /// The server.
    pub server: std::net::SocketAddr,
    /// Time of the measurement.
    #[arg(value_parser = duration)]
    pub time: Duration,
}

/// A server of static files, for measuring.
#[derive(Args, Debug)]
pub struct HttpNode {
    /// Which one.
    #[arg(value_enum)]
    pub server: HttpServer,
    /// The files.
    pub folder: PathBuf,
}

/// Servers of [`HttpNode`].
#[derive(Copy, Clone, PartialEq, Eq, ValueEnum, Debug)]
pub enum HttpServer {
    /// On the completion queue.
    Kevent,
    /// On tokio.
    Tokio,
    /// On epoll, with nothing around it.
    Epoll,
    /// nginx, with the configuration that lies in the folder; it ends with whoever started it.
    Nginx,
}

/// Balance whole messages of TCP clients over connections to backends.
///
/// Accepts connections and sends each message, whole, over the backend connection with the least to do; replies go
/// back to who asked, in the order of the requests. Backends must answer each request once. Clients whose backend is
/// lost before it answers are disconnected; lost backends are tried again.
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLES:\n  peyk kcm --frame resp --backend 127.0.0.1:6379 --connections 4\n  \
                        peyk kcm --frame length:4be --listen 0.0.0.0:7000 --backend 10.0.0.1:7000 --backend 10.0.0.2:7000\n  \
                        peyk kcm --frame bpf:parser.o --backend 127.0.0.1:9090")]
pub struct Kcm {
    /// How messages are framed: a protocol (an unknown name prints the list), `length:BYTES` and `be` or `le`, as in `length:4be`, or bpf:FILE.
    #[arg(long, value_name = "FRAMER")]
    pub frame: String,
    /// Where clients connect.
    #[arg(long, default_value = "127.0.0.1:7379", value_name = "ADDRESS")]
    pub listen: std::net::SocketAddr,
    /// Where requests go; may be given several times.
    #[arg(long, required = true, value_name = "ADDRESS")]
    pub backend: Vec<std::net::SocketAddr>,
    /// Connections to each backend.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub connections: u32,
    /// Longest message, in bytes.
    #[arg(long, default_value_t = 64 << 20, value_name = "BYTES")]
    pub max_message: usize,
    /// Print statistics this often; 0s is never.
    #[arg(long, value_parser = duration, default_value = "0s", value_name = "TIME")]
    pub interval: Duration,
}

/// KCM beside threads that own their connections: the cases K1 to K11.
///
/// Server and client run in one process over the loopback interface. The baseline is a thread per worker with an epoll
/// set of its own, which reads, handles and answers the connections bound to it. Baseline and KCM take turns; shown is
/// the median of the ratios of neighbouring rounds, with quartiles, beside the bar the case must reach. k1p is k1
/// with a client that asks for 0.7 of what the baseline can do: its latencies are not those of a full line. k3n is the
/// usual reader with a pool of workers, k4 kills connections, k5 counts wake-ups, k6 has 10,000 connections, k7 is the cost of
/// framers and programs, k8 memory, k9 long messages, k10 a thread that takes a break, k11 a mux for each connection.
#[derive(Args, Debug)]
#[command(
    after_help = "EXAMPLES:\n  peyk bench kcm --json kcm.json\n  peyk bench kcm --cases k1,k2a --pairs 21"
)]
pub struct BenchKcm {
    /// Cases to run.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "k1,k1p,k2a,k2b,k2c,k2d,k3,k3n,k4,k5,k6,k7,k8,k9,k10,k11"
    )]
    pub cases: Vec<String>,
    /// Pairs of rounds of each case.
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=101))]
    pub pairs: u32,
    /// Time of one round.
    #[arg(long, value_parser = duration, default_value = "300ms", value_name = "TIME")]
    pub time: Duration,
    /// What TCP is.
    #[command(flatten)]
    pub tcp: Tcp,
    /// Write the results as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What a second shard brings: the same work by one and by two, each on a CPU of its own.
///
/// Beside each figure stands the distance of the two CPUs at that moment, as the time of a cache line there and back:
/// below about 100 ns they are near. A machine that does not let two threads work twice as fast as one, or places
/// its CPUs far apart, shows it in the first two lines; the others mean something only in comparison with them.
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLES:\n  peyk bench shards\n  peyk bench shards --json shards.json --rounds 9")]
pub struct BenchShards {
    /// The two CPUs.
    #[arg(long, value_delimiter = ',', default_value = "0,1", value_name = "CPU,CPU")]
    pub cpus: Vec<usize>,
    /// Rounds; the median is shown.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Time for which each line is measured in a round.
    #[arg(long, value_parser = duration, default_value = "100ms", value_name = "TIME")]
    pub time: Duration,
    /// Also write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Closed loop of RPCs of one size: Homa beside bare UDP and kernel TCP.
///
/// Every figure comes from a client and a server process on this machine, connected through the loopback interface.
/// The transports take turns in short rounds, so that all of them see the same moods of the machine; the median of
/// the rounds is shown. Bare UDP sends one datagram with one system call and does nothing else: it is the floor, not
/// a transport. CPU time is that of both processes.
///
/// Where peers block, Homa waits as a stack does by default: it looks for a moment (up to 100 us, less where that is
/// in vain) before it sleeps in the kernel; `homa_sleep` is the same told to sleep at once. Bare UDP and TCP always
/// sleep at once.
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLES:\n  peyk bench rpc\n  peyk bench rpc --quick --json rpc.json\n  \
                        peyk bench rpc --sizes 100 --outstanding 64 --waiting spin --rounds 5")]
pub struct BenchRpc {
    /// Transports to compare.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "homa,homa-sleep,udp,tcp")]
    pub transports: Vec<BenchTransport>,
    /// Lengths of request and response in bytes.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000,100000,1000000",
          value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    pub sizes: Vec<u32>,
    /// Requests kept outstanding.
    #[arg(long, value_delimiter = ',', default_value = "1,64", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub outstanding: Vec<u32>,
    /// What an idle peer does.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "block,spin")]
    pub waiting: Vec<Waiting>,
    /// Rounds; the median is shown.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: Option<u32>,
    /// Measured time of each figure in each round.
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub time: Option<Duration>,
    /// Use the IPv6 loopback address.
    #[arg(long)]
    pub ipv6: bool,
    /// Done in less than twenty seconds, with rougher figures.
    #[arg(long)]
    pub quick: bool,
    /// Also write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Settings of the nodes.
    #[command(flatten)]
    pub nodes: Nodes,
}

/// Settings of the measuring processes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Nodes")]
pub struct Nodes {
    /// Shards of each Homa node's stack. A node has one CPU for all of them, unless not pinned.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=255))]
    pub shards: usize,
    /// Kernel interface that Peyk uses.
    #[arg(long, value_enum, default_value_t = BackendName::Auto)]
    pub backend: BackendName,
    /// Let the scheduler place client and server instead of giving each a CPU of its own.
    #[arg(long)]
    pub no_pin: bool,
}

/// Answer every message with itself until interrupted.
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLES:\n  peyk serve\n  peyk serve --bind [::]:4000\n  \
                        peyk serve --bind 10.0.0.2:7 --udp-port 15000 --poll spin")]
pub struct Serve {
    /// Address and Homa port.
    #[arg(long, default_value = "0.0.0.0:4000", value_name = "ADDRESS:PORT")]
    pub bind: String,
    /// Where `peyk stat` finds the counters: a path for a Unix socket, or `none`; by default one that it looks for.
    #[arg(long, value_name = "PATH|none")]
    pub export: Option<String>,
    /// Settings of the stack.
    #[command(flatten)]
    pub stack: StackFlags,
}

/// Send requests to an echo server and print how long each takes.
#[derive(Args, Debug)]
#[command(
    after_help = "EXAMPLES:\n  peyk ping localhost\n  peyk ping 10.0.0.2:4000 --count 1000 --interval 1ms --quiet\n  \
                        peyk ping [::1]:4000 --size 1000000"
)]
pub struct Ping {
    /// Host, with the Homa port if it is not 4000.
    #[arg(value_name = "HOST[:PORT]")]
    pub host: String,
    /// Requests to send; without it, until interrupted.
    #[arg(short, long, value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Time between requests; 0 sends the next when a response is there.
    #[arg(short, long, value_parser = duration, default_value = "1s", value_name = "TIME")]
    pub interval: Duration,
    /// Length of a request in bytes.
    #[arg(short, long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub size: u32,
    /// How long to wait for a response.
    #[arg(short = 'W', long, value_parser = duration, default_value = "5s", value_name = "TIME")]
    pub timeout: Duration,
    /// Print the summary only.
    #[arg(short, long)]
    pub quiet: bool,
    /// Settings of the stack.
    #[command(flatten)]
    pub stack: StackFlags,
}

/// Settings of a stack in this process.
#[derive(Args, Debug)]
#[command(next_help_heading = "Stack")]
pub struct StackFlags {
    /// UDP port of the server that carries Homa.
    #[arg(long, default_value_t = 14_600, value_name = "PORT")]
    pub udp_port: u16,
    /// Kernel interface to use.
    #[arg(long, value_enum, default_value_t = BackendName::Auto)]
    pub backend: BackendName,
    /// What to do when there is nothing to do.
    #[arg(long, value_enum, default_value_t = PollName::Adaptive)]
    pub poll: PollName,
    /// Threads that carry packets, each with a part of the connections; one for each CPU at most.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=255))]
    pub shards: usize,
    /// Write every packet sent and received to this pcapng file, for `peyk decode` or Wireshark.
    #[arg(long, value_name = "FILE")]
    pub capture: Option<PathBuf>,
}

/// Show counters and rates of a running stack, by shard.
///
/// Reads what the stack exports: `peyk serve` does, and any program that calls `Stack::export`. Its shards publish
/// their counters in their own time, ten times a second; reading them disturbs nothing.
///
/// On a terminal the view is drawn anew after every interval, until q is pressed. Elsewhere, or with --count, the
/// same numbers come as lines.
#[derive(Args, Debug)]
#[command(
    after_help = "EXAMPLES:\n  peyk serve & peyk stat\n  peyk stat --count 1 --json | jq .total.per_second\n  \
                        peyk stat 4711 --interval 200ms\n  peyk stat --prometheus > /var/lib/node_exporter/peyk.prom"
)]
pub struct Stat {
    /// Number of the process, or path of the Unix socket, that has the stack; without it, the only one there is.
    #[arg(value_name = "PID|PATH")]
    pub stack: Option<String>,
    /// Time between two looks, and over which rates are taken.
    #[arg(short, long, value_parser = stat_interval, default_value = "1s", value_name = "TIME")]
    pub interval: Duration,
    /// Print so many samples as lines, each after an interval; without it, until interrupted.
    #[arg(short, long, value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Print every counter and its rate as JSON, a line for each sample.
    #[arg(long, conflicts_with = "prometheus")]
    pub json: bool,
    /// Print every counter once, in the exposition format of Prometheus.
    #[arg(long, conflicts_with = "count")]
    pub prometheus: bool,
}

/// Print the Homa packets of a capture, one line each.
#[derive(Args, Debug)]
#[command(
    after_help = "EXAMPLES:\n  peyk decode capture.pcapng\n  peyk decode capture.pcapng --udp-port 15000"
)]
pub struct Decode {
    /// A capture, pcapng or classic pcap; `-` reads standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// UDP ports that carry Homa, besides 14600.
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    pub udp_port: Vec<u16>,
}

/// A transport of the demo.
#[derive(Copy, Clone, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum DemoTransport {
    /// Homa by Peyk, over UDP.
    Homa,
    /// Kernel TCP, one connection.
    Tcp1,
    /// Kernel TCP, four connections.
    Tcp4,
}

impl DemoTransport {
    /// The name in flags and results.
    pub fn name(self) -> &'static str {
        match self {
            DemoTransport::Homa => "homa",
            DemoTransport::Tcp1 => "tcp1",
            DemoTransport::Tcp4 => "tcp4",
        }
    }

    /// The name for people.
    pub fn title(self) -> &'static str {
        match self {
            DemoTransport::Homa => "Homa",
            DemoTransport::Tcp1 => "TCP, 1 connection",
            DemoTransport::Tcp4 => "TCP, 4 connections",
        }
    }
}

/// A transport of the benchmark.
#[derive(Copy, Clone, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum BenchTransport {
    /// Homa by Peyk, over UDP; where peers block, by its default policy.
    Homa,
    /// The same told to sleep at once; only where peers block.
    HomaSleep,
    /// Bare UDP.
    Udp,
    /// Kernel TCP, one connection.
    Tcp,
}

impl BenchTransport {
    /// The name in results.
    pub fn name(self) -> &'static str {
        match self {
            BenchTransport::Homa => "homa",
            BenchTransport::HomaSleep => "homa_sleep",
            BenchTransport::Udp => "udp_floor",
            BenchTransport::Tcp => "tcp",
        }
    }
}

/// A kernel interface by name.
#[derive(Copy, Clone, PartialEq, Eq, Debug, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendName {
    /// io_uring where it works, else epoll.
    Auto,
    /// io_uring.
    Uring,
    /// epoll.
    Epoll,
}

/// A way to wait by name.
#[derive(Copy, Clone, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum PollName {
    /// Sleep at once.
    Sleep,
    /// Never sleep.
    Spin,
    /// Poll for a while, then sleep.
    Adaptive,
}

/// Parses `60`, `60%` or `60 %` to 0.6.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim().trim_end_matches('%').trim_end();
    match number.parse::<f64>() {
        Ok(value) if (0.0..=100.0).contains(&value) => Ok(value / 100.0),
        Ok(_) => Err("a percentage lies between 0 and 100".into()),
        Err(_) => Err(format!("`{text}` is not a percentage: write 60% or 60")),
    }
}

/// A time that is not too short for rates.
fn stat_interval(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time < SHORTEST { Err(format!("at least {} ms", SHORTEST.as_millis())) } else { Ok(time) }
}

/// Parses `10s`, `1.5s`, `500ms`, `100us`, `2m` or seconds without a unit.
fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit.trim() {
        "" | "s" => 1.0,
        "ms" => 1e-3,
        "us" => 1e-6,
        "m" | "min" => 60.0,
        _ => return Err(format!("`{text}` is not a time: write 10s, 500ms or 2m")),
    };
    let value: f64 = number.parse().map_err(|_| format!("`{text}` is not a time: write 10s, 500ms or 2m"))?;
    Duration::try_from_secs_f64(value * seconds).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn cli_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn percent_takes_the_usual_forms() {
        assert_eq!(percent("60%"), Ok(0.6));
        assert_eq!(percent("60 %"), Ok(0.6));
        assert_eq!(percent("0.5"), Ok(0.005));
        assert!(percent("101").is_err());
        assert!(percent("x%").is_err());
    }

    #[test]
    fn duration_takes_the_usual_units() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1_500)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "s", "5 parsecs", "-1s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn demo_has_its_defaults() {
        let Command::Demo(demo) = Cli::parse_from(["peyk", "demo"]).command else { panic!("not demo") };
        assert_eq!(demo.workload, Name::W4);
        assert_eq!(demo.transports, [DemoTransport::Homa, DemoTransport::Tcp1, DemoTransport::Tcp4]);
        assert_eq!((demo.load, demo.drop, demo.hold), (0.6, 0.0, 0));
    }
}
