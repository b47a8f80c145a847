//! The command `peyk`: demo, bench, kcm, serve, ping, stat, decode, sim. No protocol is here: this crate measures and shows.

#![forbid(unsafe_code)]

mod bench_kcm;
mod bench_traffic;
mod cluster;
mod command;
mod flags;
mod kevent_bench;
mod load;
mod loopback;
mod node;
mod outcome;
mod prng;
mod process;
mod progress;
mod report;
mod sim;
mod testbed;
mod traffic;
mod transport;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use crate::flags::{Bench, Cli, Command};

/// Exit code after an interruption, as shells have it.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Cluster(flags) => interruptible().and_then(|()| command::cluster::run(flags)),
        Command::ClusterNode(flags) => cluster::run_node(flags.join.as_deref()),
        Command::Testbed(flags) => interruptible().and_then(|()| command::testbed::run(flags)),
        Command::TestbedAgent(flags) => testbed::probe::run(&flags.agent),
        Command::DemoNode => node::run_child(),
        Command::Bench(Bench::Rpc(flags)) => interruptible().and_then(|()| command::bench::rpc(flags)),
        Command::Bench(Bench::Kevent(flags)) => command::bench_kevent::run(flags),
        Command::HttpNode(flags) => kevent_bench::http_node::run(flags),
        Command::Bench(Bench::Shards(flags)) => command::bench_shards::run(flags),
        Command::KcmClients(flags) => bench_kcm::zipf::clients(flags),
        Command::Demo(flags) => interruptible().and_then(|()| command::demo::run(flags)),
        Command::Decode(flags) => command::decode::run(flags),
        Command::Bench(Bench::Kcm(flags)) => bench_kcm::run(flags),
        Command::Kcm(flags) => command::kcm::run(flags),
        Command::Sim(flags) => return command::sim::run(flags),
        Command::Serve(flags) => command::serve::run(flags),
        Command::Ping(flags) => command::ping::run(flags),
        Command::Stat(flags) => command::stat::run(flags),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if node::Node::is_interrupted() => ExitCode::from(INTERRUPTED),
        Err(error) => {
            eprintln!("peyk: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Makes an interruption end the measuring processes first.
fn interruptible() -> anyhow::Result<()> {
    Ok(ctrlc::set_handler(node::Node::interrupt)?)
}
