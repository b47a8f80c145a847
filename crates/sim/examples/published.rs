//! Runs one published experiment: `cargo run --release -p peyk-sim --example published -- w4 0.8 100000`.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "shows how fast it runs")]
use peyk_sim::{experiment::Experiment, measure, workload::Name};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let workload: Name = args[1].parse().expect("a workload");
    let load: f64 = args[2].parse().expect("a load");
    let messages: u64 = args[3].parse().expect("a number of messages");
    let start = std::time::Instant::now();
    let mut e = Experiment::published(workload, load, messages, 1);
    for arg in &args[4..] {
        let (k, v) = arg.split_once('=').unwrap();
        match k {
            "transport" => e.transport = v.parse().unwrap(),
            "buffer" => e.topology.buffer_bytes = Some(v.parse().unwrap()),
            "mark" => e.topology.mark_bytes = Some(v.parse().unwrap()),
            "rto_us" => e.window.min_rto_ns = 1_000 * v.parse::<u64>().unwrap(),
            "one_path" => e.window.one_path = v.parse().unwrap(),
            "drain" => e.drain = v.parse().unwrap(),
            "hdr" => e.carriage.data_header_bytes = v.parse().unwrap(),
            "unsched" => e.homa.unsched_bytes = v.parse().unwrap(),
            "window" => e.homa.window = v.parse().unwrap(),
            "oc" => e.homa.max_overcommit = v.parse().unwrap(),
            "boost" => e.homa.tail_boost_bytes = v.parse().unwrap(),
            "byrem" => e.homa.unsched_by_remaining = v.parse().unwrap(),
            "fifo" => e.homa.grant_fifo_fraction = v.parse().unwrap(),
            "warm" => e.warmup = v.parse().unwrap(),
            "seed" => e.seed = v.parse().unwrap(),
            _ => panic!(),
        }
    }
    let mut o = e.run(|_| true);
    let secs = start.elapsed().as_secs_f64();
    let p: Vec<f64> = (1..20).map(|n| n as f64 * 5.0).chain([99.0, 99.9, 100.0]).collect();
    for point in measure::points(&mut o.load.samples, &p) {
        println!("{point:?}");
    }
    println!(
        "incomplete {} refused {} backlog {} {} wasted {:.4} utilisation {:.4}",
        o.load.incomplete,
        o.load.refused,
        o.load.backlog_at_half,
        o.load.backlog_at_end,
        o.wasted_bandwidth,
        o.utilisation
    );
    let c = &o.load.counters;
    println!(
        "packets {} wire bytes per payload {:.4} overflowed {}",
        c.packets_sent,
        c.wire_bytes_sent as f64 / o.load.delivered_bytes as f64,
        c.overflowed
    );
    println!(
        "queue mean {:.0} max {} span {} total {}",
        o.downlinks.mean_bytes(),
        o.downlinks.max_bytes,
        o.load.span,
        o.load.total
    );
    println!("{secs:.1} s, {:.2} M hops/s", o.load.counters.hops as f64 / secs / 1e6);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|l| l.starts_with("VmHWM")).unwrap());
}
