//! The search for faults: a seed is a scenario; it is run under checkers; what fails is made smaller and shown.
//!
//! ```text
//!   check(seed) -> Result<Report, Failure>      one seed: run it; on a violation shrink and trace it
//!   hunt(seeds, watch) -> Result<Tally, Failure>    many, one after the other, until one fails
//!   run(&scenario) -> Report                    a scenario as it is, with its violations
//!   trace(&scenario) -> (Report, String)        the same, with its packets as text
//!   Scenario::of(seed)                          what a seed means
//! ```
//!
//! All of this is single-threaded, reads no clock and depends on nothing but its arguments: whoever has many
//! cores gives each its own seeds. A panic while a scenario runs, in the protocol or in a checker, is a
//! [`Violation::Panicked`]; the panic hook runs as usual, so commands may want to silence it.

use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

pub use crate::checker::Violation;
pub use crate::echo::Tally;
pub use crate::scenario::Scenario;

use crate::checker::state::{self, Limits};
use crate::echo::{Echo, new_host};
use crate::fault::network::{Eye, Network};
use crate::host::homa::HomaHost;
use crate::port::Discipline;
use crate::scenario::ROOMY_PAGES;
use crate::shrink;
use crate::time::Picos;
use crate::world::World;
use peyk_sansio::Prng;

/// Most things that may happen in a run.
const STEPS: u64 = 2_000_000;
/// Most violations that a report has.
const VIOLATIONS: usize = 20;
/// Time for the probes, and for everything to be forgotten after them, in time-outs.
const REST: u64 = 8;

/// What came of a scenario.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// A value that differs if any packet or event differs.
    pub digest: u64,
    /// Virtual time it took.
    pub time: Picos,
    /// Packets that hosts put on the wire.
    pub packets: u64,
    /// What happened.
    pub tally: Tally,
    /// What must not have happened, the first twenty.
    pub violations: Vec<Violation>,
}

/// A seed that does not hold.
#[derive(Clone, PartialEq, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What its scenario violates.
    pub violations: Vec<Violation>,
    /// The smallest scenario found that violates the first of them in the same way.
    pub scenario: Box<Scenario>,
    /// What this one violates.
    pub shrunk_violations: Vec<Violation>,
    /// Its events and packets: time, from, to, packet, and what became of it.
    pub trace: String,
}

impl fmt::Display for Failure {
    /// Everything, for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} fails:", self.seed)?;
        for violation in &self.violations {
            writeln!(f, "  {violation}")?;
        }
        writeln!(f, "the smallest scenario found, and what it violates:\n{}", self.scenario)?;
        for violation in &self.shrunk_violations {
            writeln!(f, "  {violation}")?;
        }
        write!(f, "its trace:\n{}", self.trace)
    }
}

/// Runs the scenario of a seed.
///
/// # Errors
/// It violates something. The scenario has been made smaller, which took some hundred runs of it.
pub fn check(seed: u64) -> Result<Report, Failure> {
    check_scenario(Scenario::of(seed))
}

/// Runs a scenario, as [`check`] does.
///
/// # Errors
/// As for [`check`].
pub fn check_scenario(scenario: Scenario) -> Result<Report, Failure> {
    let report = run(&scenario);
    let Some(first) = report.violations.first() else { return Ok(report) };
    let small = shrink::shrink(scenario, |s| run(s).violations.iter().any(|v| v.is_like(first)));
    let (shrunk, trace) = trace(&small);
    Err(Failure {
        seed: report.seed,
        violations: report.violations,
        scenario: Box::new(small),
        shrunk_violations: shrunk.violations,
        trace,
    })
}

/// Runs seeds until one fails. `watch` is called after each; false from it ends the hunt.
///
/// # Errors
/// The first seed that violates something.
pub fn hunt(
    seeds: impl IntoIterator<Item = u64>,
    mut watch: impl FnMut(&Report) -> bool,
) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    for seed in seeds {
        let report = check(seed)?;
        tally.add(&report.tally);
        if !watch(&report) {
            break;
        }
    }
    Ok(tally)
}

/// Runs a scenario.
pub fn run(scenario: &Scenario) -> Report {
    run_with(scenario, false).0
}

/// Runs a scenario and writes down its events and packets, the last few thousand if there are more.
pub fn trace(scenario: &Scenario) -> (Report, String) {
    run_with(scenario, true)
}

fn run_with(scenario: &Scenario, is_verbose: bool) -> (Report, String) {
    let eye = Rc::new(RefCell::new(Eye::new(scenario, is_verbose)));
    let result = catch_unwind(AssertUnwindSafe(|| Run::new(scenario, Rc::clone(&eye)).finish()));
    let mut report = result.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Report {
            seed: scenario.seed,
            digest: 0,
            time: Picos::ZERO,
            packets: 0,
            tally: Tally::default(),
            violations: vec![Violation::Panicked { message: text.unwrap_or_default() }],
        }
    });
    // A panic may have come while it was borrowed; the borrow ended with the stack.
    let eye = eye.borrow();
    report.digest = eye.trace.digest();
    report.violations.truncate(VIOLATIONS);
    (report, eye.trace.text())
}

/// One run.
struct Run<'a> {
    scenario: &'a Scenario,
    world: World<HomaHost>,
    echo: Echo,
    eye: Rc<RefCell<Eye>>,
    limits: Limits,
    /// Hosts that have exceeded a limit, one bit each.
    over: u64,
    steps: u64,
    violations: Vec<Violation>,
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario, eye: Rc<RefCell<Eye>>) -> Run<'a> {
        let mut seeds = Prng::new(scenario.seed);
        let drifts = &scenario.drifts;
        let drift = |id: u16| drifts.get(usize::from(id)).copied().unwrap_or_default();
        let host = |id| new_host(scenario, id, seeds.next_u64(), drift(id).local(Picos::ZERO));
        let hosts = (0..scenario.hosts()).map(host).collect();
        let topology = scenario.topology.clone();
        let mut world = World::new(topology, Discipline::StrictPriority, scenario.seed, hosts);
        for (id, &drift) in drifts.iter().enumerate().take(usize::from(scenario.hosts())) {
            world.set_drift(id as u16, drift);
        }
        for id in 0..scenario.hosts() {
            world.set_look_after(id, scenario.look_after);
        }
        world.set_rule(Box::new(Network::new(scenario, Rc::clone(&eye))));
        // A host that has lost its state, or had no memory for it, is told what others were granted before;
        // liars say what they like.
        let has_memory = scenario.pages >= ROOMY_PAGES;
        // So does the late copy, sent again when asked for, of a packet of a message that was given up.
        let may_give_up = scenario.calls.iter().any(|c| c.abort.is_some() || c.deadline.is_some());
        let is_announced_freely = scenario.is_garbled()
            || !scenario.faults.is_empty()
            || !has_memory
            || may_give_up && !scenario.noise.is_none();
        let limits = Limits::new(&scenario.config, Echo::longest(scenario), is_announced_freely);
        let end = Run::end(scenario);
        let echo = Echo::new(scenario, &mut world, Rc::clone(&eye), end);
        Run { scenario, world, echo, eye, limits, over: 0, steps: 0, violations: Vec::new() }
    }

    /// When the run is over: twice the time after which servers forget silent clients.
    fn end(scenario: &Scenario) -> Picos {
        let ticks = u64::from(scenario.config.timeout_ticks);
        scenario.heal_at() + scenario.settling() + Picos::from_millis(REST * ticks + 3_000)
    }

    fn finish(mut self) -> Report {
        let settled = self.scenario.heal_at() + self.scenario.settling();
        self.run_until(settled);
        self.echo.probe(&mut self.world);
        self.run_until(Run::end(self.scenario));
        if self.steps < STEPS {
            self.check_end();
        } else {
            self.violations.push(Violation::NoRest { steps: self.steps });
        }
        self.violations.append(&mut self.echo.calls.violations);
        self.violations.append(&mut self.eye.borrow_mut().wire.violations);
        Report {
            seed: self.scenario.seed,
            digest: 0,
            time: self.world.now(),
            packets: self.world.counters.packets_sent,
            tally: self.echo.tally.clone(),
            violations: self.violations,
        }
    }

    fn run_until(&mut self, until: Picos) {
        while self.violations.len() < VIOLATIONS
            && self.steps < STEPS
            && self.world.step(&mut self.echo, until)
        {
            self.steps += 1;
            for id in 0..self.world.hosts() {
                if self.over >> id & 1 == 0
                    && let Some(violation) = self.limits.check(id, self.world.host(id))
                {
                    self.over |= 1 << id;
                    self.violations.push(violation);
                }
            }
        }
    }

    fn check_end(&mut self) {
        let is_calm = self.scenario.is_lossless() && self.scenario.is_survivable();
        self.echo.calls.check_end();
        self.eye.borrow_mut().wire.check_end();
        for id in 0..self.world.hosts() {
            self.echo.count(self.world.host(id));
            let count = self.world.host(id).endpoint.stats().server_silences;
            if is_calm && count > 0 {
                self.violations.push(Violation::Unacknowledged { server: id, count });
            }
            let violations = &mut self.violations;
            self.world.call(id, |host, _| state::leftovers(id, host, violations));
        }
    }
}
