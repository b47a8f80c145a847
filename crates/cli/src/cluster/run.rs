//! One transport after the other under the same load: unloaded round trips first, then the load, then what it cost.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use peyk_sim::workload::{Encoding, Name, Sizes};

use super::{
    Transport,
    crew::{Assignment, Crew, Disturbance, Loaded},
    outcome::{Drops, Run, Unloaded},
    remote::{Place, Remote},
    usage::Machine,
};
use crate::{
    load::{Arrivals, Baseline, Draw, LoadPlan},
    node::{HomaOptions, Link},
    progress::Bar,
    testbed::{Rate, Testbed},
    traffic::HEADER,
    verify::Executed,
};

pub use super::crew::Disturbance as Trouble;

/// Sizes at which unloaded round trips are measured.
const UNLOADED_SIZES: [u32; 12] =
    [16, 100, 300, 700, 1_400, 2_800, 6_000, 15_000, 50_000, 120_000, 350_000, 1_000_000];

/// Round trips of one size in a row.
const UNLOADED_IN_A_ROW: u32 = 4;

/// Cap on outstanding messages of a host: an open loop, but not at the price of the machine.
const OUTSTANDING_MAX: u32 = 5_000;

/// A round trip of a full packet before one is measured, in microseconds.
const ROUND_TRIP_GUESS: f64 = 200.0;

/// The hosts and who runs on them.
pub struct Hosts {
    /// Where nodes can be started; empty if they have joined.
    pub places: Vec<Place>,
    /// Nodes that have joined.
    pub joined: Vec<Remote>,
    /// Their addresses.
    pub ips: Vec<IpAddr>,
    /// The network, if it is one of ours.
    pub testbed: Option<Testbed>,
    /// Rate of the links.
    pub rate: Rate,
}

/// What all runs have in common.
#[derive(Clone, Debug)]
pub struct Common {
    /// Sizes of the messages.
    pub workload: Name,
    /// Payload that each host sends, as a share of its link: half of it requests, half responses.
    pub load: f64,
    /// Seed of sizes, arrivals, contents and targets.
    pub seed: u64,
    /// Messages become due for this long, warm-up included.
    pub duration: Duration,
    /// Not measured.
    pub warmup: Duration,
    /// How long to wait for answers at the end.
    pub drain: Duration,
    /// How long unloaded round trips are measured.
    pub unloaded: Duration,
    /// For Homa.
    pub homa: HomaOptions,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Case {
    /// What carries the messages.
    pub transport: Transport,
    /// What is special about it, for people; empty if nothing is.
    pub variant: String,
    /// Homa's priority levels, where they differ.
    pub levels: Option<u8>,
    /// Homa's overcommitment, where it differs.
    pub overcommit: Option<u32>,
    /// Another transport that shares the links, and its load.
    pub beside: Option<(Transport, f64)>,
    /// What happens to one of the nodes.
    pub trouble: Option<Disturbance>,
    /// All hosts but the first keep this many messages of 10,000 bytes to the first outstanding.
    pub incast: Option<u32>,
}

impl Case {
    /// Nothing special.
    pub fn plain(transport: Transport) -> Case {
        Case {
            transport,
            variant: String::new(),
            levels: None,
            overcommit: None,
            beside: None,
            trouble: None,
            incast: None,
        }
    }
}

/// Bytes of a message of an incast.
const INCAST_BYTES: u32 = 10_000;

/// Runs cases on hosts.
pub struct Runner<'a> {
    /// The hosts.
    pub hosts: &'a mut Hosts,
    /// What all runs have in common.
    pub common: Common,
    /// Told how far it is.
    pub bar: &'a Bar,
    /// Milliseconds of what is done.
    pub done: u64,
}

impl Runner<'_> {
    /// Best round trips of a transport between the first two hosts while nothing else is sent.
    pub fn unloaded(&mut self, transport: Transport) -> Result<Unloaded> {
        let what = format!("{}: unloaded round trips", transport.name());
        let duration = self.common.unloaded;
        let plan = LoadPlan {
            draw: Draw::InTurn(UNLOADED_SIZES.to_vec()),
            arrivals: Arrivals::Closed(1),
            in_a_row: UNLOADED_IN_A_ROW,
            servers: 1,
            ..self.plan(0, duration, Duration::ZERO)
        };
        let homa = self.homa(&Case::plain(transport), ROUND_TRIP_GUESS);
        let (bar, done) = (self.bar, self.done);
        let mut nodes = fresh(self.hosts, 2)?;
        let ips = self.hosts.ips[..2].to_vec();
        let mut crew = Crew::start(&mut nodes, &ips, transport, &homa)?;
        let assignments = vec![Some(Assignment { plan: plan.clone(), targets: vec![1] }), None];
        let mut loading = crew.begin(assignments)?;
        while !crew.poll(&mut loading, &mut |so_far| {
            bar.set(done + so_far.elapsed_ms.min(duration.as_millis() as u64));
            bar.say(&what);
        })? {
            std::thread::sleep(Duration::from_millis(10));
        }
        crew.stop()?;
        give_back(self.hosts, nodes);
        self.done += duration.as_millis() as u64;
        let sizes = Sizes::uniform(&UNLOADED_SIZES);
        let lists = loading.loaded.measured.by_size;
        let best: Vec<(u32, u64)> = sizes
            .points()
            .iter()
            .zip(&lists)
            .filter_map(|(point, list)| Some((point.size, *list.first()?)))
            .collect();
        ensure!(!best.is_empty(), "no round trip could be measured over {}", transport.name());
        Ok(Unloaded { baseline: Baseline { points: best } })
    }

    /// Runs a case. Slowdowns are relative to `reference`; `unloaded` are the transport's own round trips.
    pub fn case(&mut self, case: &Case, reference: &Baseline, unloaded: &Unloaded) -> Result<Run> {
        let round_trip = unloaded.baseline.round_trip(1_400).map_or(ROUND_TRIP_GUESS, |ns| ns / 1e3);
        let homa = self.homa(case, round_trip);
        let hosts = self.hosts.ips.len();
        let ips = self.hosts.ips.clone();
        let mut nodes = fresh(self.hosts, hosts)?;
        let mut others = match case.beside {
            Some(_) => fresh(self.hosts, hosts)?,
            None => Vec::new(),
        };
        let mut crew = Crew::start(&mut nodes, &ips, case.transport, &homa)?;
        let mut beside = match case.beside {
            Some((transport, _)) => Some(Crew::start(&mut others, &ips, transport, &homa)?),
            None => None,
        };
        let before = Drops::so_far(self.hosts.testbed.as_ref())?;
        let (machine, begun) = (Machine::so_far(), Instant::now());
        let mut loading = crew.begin(self.assignments(case, self.common.load, 0))?;
        let mut second = match (&mut beside, case.beside) {
            (Some(crew), Some((_, load))) => Some(crew.begin(self.assignments(case, load, 1))?),
            _ => None,
        };
        let until = self.common.duration;
        let mut cpu_percent = None;
        let mut is_over = false;
        while !is_over {
            let (bar, done) = (self.bar, self.done);
            let mut progress = |so_far: crate::load::Progress| {
                bar.set(done + so_far.elapsed_ms.min(until.as_millis() as u64));
                bar.say(&format!("{} {}", case.transport.name(), case.variant));
            };
            is_over = crew.poll(&mut loading, &mut progress)?;
            if let (Some(crew), Some(loading)) = (&mut beside, &mut second) {
                is_over &= crew.poll(loading, &mut |_| ())?;
            }
            if let Some(trouble) = case.trouble.filter(|_| begun.elapsed() < until) {
                crew.disturb(&loading, trouble)?;
            } else if let Some(Disturbance::Stutter { place, .. }) = case.trouble {
                crew.resume(place)?;
            }
            if cpu_percent.is_none() && begun.elapsed() >= until {
                cpu_percent = Some(Machine::so_far().percent_since(machine));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let drops = Drops::so_far(self.hosts.testbed.as_ref())?.since(&before);
        let note = std::mem::take(&mut crew.note);
        let served = crew.stop()?;
        if let Some(crew) = beside {
            crew.stop()?;
        }
        self.done += until.as_millis() as u64;
        let result = self.result(case, reference, unloaded, loading.loaded, &served)?;
        give_back(self.hosts, nodes);
        Ok(Run {
            drops,
            note,
            cpu_percent: cpu_percent.unwrap_or_else(|| Machine::so_far().percent_since(machine)),
            beside: second.map(|s| self.brief(case, s.loaded)).transpose()?,
            ..result
        })
    }

    fn plan(&self, origin: usize, duration: Duration, warmup: Duration) -> LoadPlan {
        LoadPlan {
            draw: Draw::Workload(self.common.workload),
            arrivals: Arrivals::Closed(1),
            // Each host has arrivals and sizes of its own.
            seed: self.common.seed.wrapping_mul(1_000).wrapping_add(origin as u64 * 8),
            duration_ms: duration.as_millis() as u64,
            warmup_ms: warmup.as_millis() as u64,
            drain_ms: self.common.drain.as_millis() as u64,
            outstanding_max: OUTSTANDING_MAX,
            hold: 0,
            origin: origin as u32,
            servers: self.hosts.ips.len() - 1,
            in_a_row: 1,
            baseline: Baseline::default(),
        }
    }

    /// Messages a second that each host is to send at this load.
    pub fn rpcs_per_second(&self, load: f64) -> f64 {
        let mean = Sizes::of(self.common.workload, Encoding::Linux, HEADER as u32).mean();
        // Half of what a host sends is responses.
        self.hosts.rate.0 as f64 * load / 2.0 / 8.0 / mean
    }

    fn assignments(&self, case: &Case, load: f64, crew: usize) -> Vec<Option<Assignment>> {
        let hosts = self.hosts.ips.len();
        let common = &self.common;
        (0..hosts)
            .map(|place| {
                let mut plan = self.plan(place + crew * hosts, common.duration, common.warmup);
                let targets: Vec<usize> = match case.incast {
                    None => (0..hosts).filter(|&t| t != place).collect(),
                    Some(_) if place == 0 => return None,
                    Some(_) => vec![0],
                };
                plan.servers = targets.len();
                match case.incast {
                    None => plan.arrivals = Arrivals::Poisson(self.rpcs_per_second(load)),
                    Some(count) => {
                        plan.arrivals = Arrivals::Closed(count);
                        plan.draw = Draw::InTurn(vec![INCAST_BYTES]);
                    }
                }
                Some(Assignment { plan, targets })
            })
            .collect()
    }

    fn homa(&self, case: &Case, round_trip_us: f64) -> HomaOptions {
        let mut homa = self.common.homa.clone();
        let given = homa.link.take();
        let (unscheduled, srpt_limit) =
            given.map_or((None, None), |link| (link.unscheduled, link.srpt_limit));
        let (levels, overcommit) = (case.levels, case.overcommit);
        let mbps = self.hosts.rate.mbit().round() as u32;
        homa.link = Some(Link { mbps, round_trip_us, levels, overcommit, unscheduled, srpt_limit });
        homa
    }

    fn result(
        &self,
        case: &Case,
        reference: &Baseline,
        unloaded: &Unloaded,
        loaded: Loaded,
        served: &[Executed],
    ) -> Result<Run> {
        let mut plan = self.plan(0, self.common.duration, self.common.warmup);
        plan.baseline = reference.clone();
        plan.arrivals = Arrivals::Poisson(1.0);
        let sizes = match case.incast {
            None => Sizes::of(self.common.workload, Encoding::Linux, HEADER as u32),
            Some(_) => Sizes::uniform(&[INCAST_BYTES]),
        };
        Ok(Run::new(case, &plan, &sizes, self.hosts.ips.len(), loaded, unloaded, served))
    }

    /// A run beside another one, without slowdowns of its own.
    fn brief(&self, case: &Case, loaded: Loaded) -> Result<Box<Run>> {
        let (transport, _) = case.beside.context("nothing ran beside")?;
        let empty = Unloaded { baseline: Baseline::default() };
        let plain = Case { incast: case.incast, ..Case::plain(transport) };
        Ok(Box::new(self.result(&plain, &Baseline::default(), &empty, loaded, &[])?))
    }
}

/// Nodes for the first hosts: those that have joined, or new ones.
fn fresh(hosts: &mut Hosts, count: usize) -> Result<Vec<Remote>> {
    if hosts.places.is_empty() {
        ensure!(hosts.joined.len() >= count, "nodes that have joined can only do one thing at a time");
        return Ok(hosts.joined.drain(..count).collect());
    }
    hosts.places[..count].iter().map(Remote::start).collect()
}

/// Keeps nodes that have joined for what comes next.
fn give_back(hosts: &mut Hosts, nodes: Vec<Remote>) {
    if hosts.places.is_empty() {
        hosts.joined.splice(..0, nodes);
    }
}
