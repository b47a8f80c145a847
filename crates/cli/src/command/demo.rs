//! `peyk demo`: the same load over each transport, side by side.
//!
//! Phases: best unloaded round trips, the capacity of each transport, then the run of each transport at a share of
//! the lowest capacity. Every phase is a fresh pair of processes.

use anyhow::{Context, Result, ensure};

use peyk_sim::workload::{Encoding, Sizes};

use crate::{
    command::bench::write_json,
    flags::{Demo, DemoTransport},
    load::{Arrivals, Baseline, Draw, LoadPlan},
    node::{Carrier, HomaOptions, Pair},
    outcome::{BaselineOutcome, Offered, Outcome, Settings, TransportOutcome},
    progress::Bar,
    report,
    traffic::HEADER,
};

/// Cap on outstanding messages.
const OUTSTANDING_MAX: u32 = 5_000;

/// Messages outstanding when capacities are measured.
const CAPACITY_OUTSTANDING: u32 = 64;

/// Sizes at which unloaded round trips are measured.
const BASELINE_SIZES: [u32; 16] = [
    16, 100, 300, 700, 1_400, 2_800, 6_000, 12_000, 25_000, 50_000, 100_000, 200_000, 350_000, 500_000,
    750_000, 1_000_000,
];

/// Lengths of the phases in milliseconds.
struct Times {
    baseline: u64,
    capacity: u64,
    run: u64,
    warmup: u64,
    drain: u64,
}

impl Times {
    fn of(flags: &Demo) -> Times {
        let run = flags.duration.map(|d| (d.as_millis() as u64).max(200));
        if flags.quick {
            let run = run.unwrap_or(2_800);
            Times { baseline: 600, capacity: 500, run, warmup: (run / 10).min(300), drain: 2_000 }
        } else {
            let run = run.unwrap_or(12_000);
            Times { baseline: 2_000, capacity: 1_500, run, warmup: (run / 10).min(1_000), drain: 5_000 }
        }
    }

    fn total(&self, transports: usize) -> u64 {
        self.baseline + transports as u64 * (self.capacity + self.run)
    }
}

/// A demo on its way.
struct Run<'a> {
    flags: &'a Demo,
    times: Times,
    bar: Bar,
    /// Milliseconds of the phases that are over.
    done: u64,
}

/// What a transport can carry.
#[derive(Copy, Clone)]
struct Capacity {
    gbps: f64,
    rpcs_per_second: f64,
}

/// Runs the demo.
pub fn run(flags: &Demo) -> Result<()> {
    ensure!(flags.load > 0.0, "a load of 0 % measures nothing");
    ensure!(!flags.transports.is_empty(), "name at least one transport");
    let times = Times::of(flags);
    let bar = Bar::new(times.total(flags.transports.len()), "demo");
    let outcome = Run { flags, times, bar, done: 0 }.outcome()?;
    print!("{}", report::text::text(&outcome));
    let html = report::html::page(&outcome)?;
    std::fs::write(&flags.html, html).with_context(|| format!("writing {}", flags.html.display()))?;
    println!("\nReport: {}", flags.html.display());
    if let Some(path) = &flags.json {
        write_json(path, &outcome)?;
        println!("Figures: {}", path.display());
    }
    Ok(())
}

impl Run<'_> {
    fn outcome(mut self) -> Result<Outcome> {
        let flags = self.flags;
        let sizes = Sizes::of(flags.workload, Encoding::Linux, HEADER as u32);
        let reference = self.reference();
        let baseline = self.baseline(reference)?;
        let capacities: Vec<Capacity> =
            flags.transports.iter().map(|&t| self.capacity(t)).collect::<Result<_>>()?;
        let offered = self.offered(&sizes, &capacities)?;
        let transports = flags
            .transports
            .iter()
            .zip(capacities)
            .map(|(&transport, capacity)| self.measure(transport, capacity, &offered, &baseline))
            .collect::<Result<_>>()?;
        self.bar.finish();
        let settings = Settings {
            seed: flags.seed,
            duration_seconds: self.times.run as f64 / 1e3,
            warmup_seconds: self.times.warmup as f64 / 1e3,
            hold: flags.hold,
            homa_drop: flags.drop,
            waiting: flags.waiting,
            ipv6: flags.ipv6,
            pinned: !flags.nodes.no_pin,
            outstanding_max: OUTSTANDING_MAX,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
        };
        Ok(Outcome {
            workload: flags.workload,
            settings,
            offered,
            baseline: BaselineOutcome { transport: reference.name(), baseline },
            transports,
        })
    }

    /// The transport whose unloaded round trips slowdowns are relative to: Homa, unless it is left out.
    fn reference(&self) -> DemoTransport {
        let transports = &self.flags.transports;
        if transports.contains(&DemoTransport::Homa) { DemoTransport::Homa } else { transports[0] }
    }

    /// Best round trips of the reference on the idle machine, without losses on purpose.
    fn baseline(&mut self, reference: DemoTransport) -> Result<Baseline> {
        let plan = self.plan(Draw::InTurn(BASELINE_SIZES.to_vec()), Arrivals::Closed(1), self.times.baseline);
        let what = format!("unloaded round trips, {}", reference.title());
        let (result, _, _) = self.phase(&what, self.pair(reference, 0.0), plan)?;
        ensure!(!result.best.is_empty(), "no round trip could be measured over {}", reference.title());
        Ok(Baseline { points: result.best })
    }

    fn capacity(&mut self, transport: DemoTransport) -> Result<Capacity> {
        let arrivals = Arrivals::Closed(CAPACITY_OUTSTANDING);
        let mut plan = self.plan(Draw::Workload(self.flags.workload), arrivals, self.times.capacity);
        plan.warmup_ms = self.times.capacity / 5;
        let what = format!("capacity, {}", transport.title());
        let (result, _, _) = self.phase(&what, self.pair(transport, self.flags.drop), plan)?;
        ensure!(result.completed > 0, "nothing got through over {}", transport.title());
        Ok(Capacity { gbps: result.goodput_gbps, rpcs_per_second: result.rpcs_per_second })
    }

    fn offered(&self, sizes: &Sizes, capacities: &[Capacity]) -> Result<Offered> {
        let pairs = self.flags.transports.iter().zip(capacities);
        let (lowest, capacity) =
            pairs.min_by(|a, b| a.1.gbps.total_cmp(&b.1.gbps)).context("no transport was measured")?;
        let goodput_gbps = capacity.gbps * self.flags.load;
        let mean_bytes = sizes.mean();
        Ok(Offered {
            share: self.flags.load,
            rpcs_per_second: goodput_gbps * 1e9 / 8.0 / mean_bytes,
            goodput_gbps,
            lowest: lowest.name(),
            mean_bytes,
            published_mean_bytes: self.flags.workload.published_mean(Encoding::Linux),
        })
    }

    fn measure(
        &mut self,
        transport: DemoTransport,
        capacity: Capacity,
        offered: &Offered,
        baseline: &Baseline,
    ) -> Result<TransportOutcome> {
        let arrivals = Arrivals::Poisson(offered.rpcs_per_second);
        let mut plan = self.plan(Draw::Workload(self.flags.workload), arrivals, self.times.run);
        plan.warmup_ms = self.times.warmup;
        plan.hold = self.flags.hold;
        plan.baseline = baseline.clone();
        let what = format!("{} at {:.2} Gbit/s", transport.title(), offered.goodput_gbps);
        let (load, server, note) = self.phase(&what, self.pair(transport, self.flags.drop), plan)?;
        Ok(TransportOutcome {
            name: transport.name(),
            title: transport.title(),
            capacity_gbps: capacity.gbps,
            capacity_rpcs_per_second: capacity.rpcs_per_second,
            corrupt: load.corrupt + server.corrupt,
            executed_twice: server.executed_twice,
            server,
            note,
            load,
        })
    }

    fn plan(&self, draw: Draw, arrivals: Arrivals, duration_ms: u64) -> LoadPlan {
        LoadPlan {
            draw,
            arrivals,
            seed: self.flags.seed,
            duration_ms,
            warmup_ms: 0,
            drain_ms: self.times.drain,
            outstanding_max: OUTSTANDING_MAX,
            hold: 0,
            origin: 0,
            servers: 1,
            in_a_row: 16,
            baseline: Baseline::default(),
        }
    }

    fn pair(&self, transport: DemoTransport, drop: f64) -> Pair {
        let (carrier, connections) = match transport {
            DemoTransport::Homa => (Carrier::Homa, 1),
            DemoTransport::Tcp1 => (Carrier::Tcp, 1),
            DemoTransport::Tcp4 => (Carrier::Tcp, 4),
        };
        Pair {
            name: transport.title().to_owned(),
            carrier,
            connections,
            waiting: self.flags.waiting,
            ipv6: self.flags.ipv6,
            pinned: !self.flags.nodes.no_pin,
            homa: HomaOptions {
                backend: self.flags.nodes.backend,
                drop,
                sleep: false,
                shards: self.flags.nodes.shards,
                link: None,
            },
        }
    }

    fn phase(&mut self, what: &str, pair: Pair, plan: LoadPlan) -> Result<Phase> {
        self.bar.say(what);
        let duration = plan.duration_ms;
        let result = pair.load(plan, |progress| {
            self.bar.set(self.done + progress.elapsed_ms.min(duration));
            self.bar.say(what);
        })?;
        self.done += duration;
        self.bar.set(self.done);
        Ok(result)
    }
}

/// Result of one phase: the client's, the server's, a note.
type Phase = (crate::load::LoadResult, crate::verify::Executed, String);

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(arguments: &[&str]) -> u64 {
        let cli = <crate::flags::Cli as clap::Parser>::parse_from(arguments);
        let crate::flags::Command::Demo(flags) = cli.command else { panic!("not demo") };
        Times::of(&flags).total(flags.transports.len())
    }

    #[test]
    fn phases_leave_time_for_starting_and_draining() {
        assert!(budget(&["peyk", "demo", "--quick"]) < 12_000);
        assert!(budget(&["peyk", "demo"]) < 50_000);
    }
}
