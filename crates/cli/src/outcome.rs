//! The outcome of a demo, as it is shown and as it is written: the JSON form is this structure.

use serde::Serialize;

use peyk_sim::workload::Name;

use crate::{
    load::{Baseline, LoadResult},
    transport::tcp::Waiting,
    verify::Executed,
};

/// Everything a demo has found out.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The workload.
    pub workload: Name,
    /// How it was run.
    pub settings: Settings,
    /// The load that every transport was offered.
    pub offered: Offered,
    /// What slowdowns are relative to.
    pub baseline: BaselineOutcome,
    /// One entry per transport, in the order of the runs.
    pub transports: Vec<TransportOutcome>,
}

/// How a demo was run.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// Seed of sizes, arrivals and contents.
    pub seed: u64,
    /// Seconds during which messages were sent, warm-up included.
    pub duration_seconds: f64,
    /// Seconds at the beginning that are not measured.
    pub warmup_seconds: f64,
    /// Further requests that stayed open at the server.
    pub hold: u32,
    /// Share of packets lost on purpose below Homa.
    pub homa_drop: f64,
    /// What an idle peer did.
    pub waiting: Waiting,
    /// Whether IPv6 was used.
    pub ipv6: bool,
    /// Whether client and server had a CPU each.
    pub pinned: bool,
    /// Cap on outstanding messages.
    pub outstanding_max: u32,
    /// CPUs of the machine that the demo may use.
    pub cpus: usize,
}

/// The load that every transport was offered.
#[derive(Clone, Debug, Serialize)]
pub struct Offered {
    /// Share of the lowest capacity.
    pub share: f64,
    /// Messages a second.
    pub rpcs_per_second: f64,
    /// Payload in one direction.
    pub goodput_gbps: f64,
    /// The transport with the lowest capacity.
    pub lowest: &'static str,
    /// Mean size of the messages in bytes.
    pub mean_bytes: f64,
    /// The published mean of the workload in bytes.
    pub published_mean_bytes: f64,
}

/// Best round trips on the idle machine.
#[derive(Clone, Debug, Serialize)]
pub struct BaselineOutcome {
    /// The transport they were measured with.
    pub transport: &'static str,
    /// Size in bytes, round trip in nanoseconds.
    #[serde(flatten)]
    pub baseline: Baseline,
}

/// One transport.
#[derive(Clone, Debug, Serialize)]
pub struct TransportOutcome {
    /// `homa`, `tcp1` or `tcp4`.
    pub name: &'static str,
    /// The name for people.
    #[serde(skip)]
    pub title: &'static str,
    /// What it can carry when 64 messages are always outstanding, in Gbit/s of payload in one direction.
    pub capacity_gbps: f64,
    /// The same in messages a second.
    pub capacity_rpcs_per_second: f64,
    /// Responses that differ from the request, plus requests that arrived damaged.
    pub corrupt: u64,
    /// Requests that the server executed more than once.
    pub executed_twice: u64,
    /// What the server counted.
    pub server: Executed,
    /// Congestion control or other particulars.
    pub note: String,
    /// What the client measured.
    #[serde(flatten)]
    pub load: LoadResult,
}

impl TransportOutcome {
    /// Whether every message came back once, whole, and was executed once.
    pub fn is_clean(&self) -> bool {
        let load = &self.load;
        let failures = load.lost + load.unexpected + load.released_early + load.unsent;
        failures + self.corrupt + self.executed_twice == 0 && load.held == load.held_completed
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::load::{Share, result::Bin};

    /// An outcome with plausible figures, for tests of reports.
    pub fn example() -> Outcome {
        let share = |percent: f64, factor: f64| Share {
            percent,
            size: (percent * percent * 100.0) as u32,
            count: 1_000,
            p50_slowdown: Some(1.0 + factor * percent / 100.0),
            p99_slowdown: Some(2.0 + factor * percent / 10.0),
            p50_us: Some(30.0 + percent),
            p99_us: Some(60.0 + 10.0 * percent),
        };
        let transport = |name, title, factor: f64| TransportOutcome {
            name,
            title,
            capacity_gbps: 8.0,
            capacity_rpcs_per_second: 16_000.0,
            corrupt: 0,
            executed_twice: 0,
            server: Executed::default(),
            note: String::new(),
            load: LoadResult {
                sent: 1_000,
                completed: 1_000,
                rpcs_per_second: 9_000.0,
                goodput_gbps: 4.8,
                points: (1..=10).map(|i| share(f64::from(i) * 10.0, factor)).collect(),
                curve: (1..=40).map(|i| share(f64::from(i) * 2.5, factor)).collect(),
                cdf: (1..=100).map(|i| (20.0 * f64::from(i), f64::from(i) / 100.0)).collect(),
                cdf_short: (1..=100).map(|i| (20.0 + f64::from(i), f64::from(i) / 100.0)).collect(),
                timeline: (0..20).map(|i| Bin { seconds: f64::from(i) / 10.0, goodput_gbps: 4.8 }).collect(),
                ..LoadResult::default()
            },
        };
        Outcome {
            workload: Name::W4,
            settings: Settings {
                seed: 1,
                duration_seconds: 3.0,
                warmup_seconds: 0.5,
                hold: 0,
                homa_drop: 0.0,
                waiting: Waiting::Block,
                ipv6: false,
                pinned: true,
                outstanding_max: 5_000,
                cpus: 2,
            },
            offered: Offered {
                share: 0.6,
                rpcs_per_second: 9_000.0,
                goodput_gbps: 4.8,
                lowest: "homa",
                mean_bytes: 60_000.0,
                published_mean_bytes: 60_175.1,
            },
            baseline: BaselineOutcome {
                transport: "homa",
                baseline: Baseline { points: vec![(16, 20_000), (1_000_000, 900_000)] },
            },
            transports: vec![transport("homa", "Homa", 1.0), transport("tcp1", "TCP, 1 connection", 9.0)],
        }
    }

    #[test]
    fn json_has_the_promised_fields() {
        let json = serde_json::to_value(example()).unwrap();
        assert_eq!(json["workload"], "w4");
        let transport = &json["transports"][0];
        assert_eq!(transport["name"], "homa");
        for field in ["sent", "completed", "lost", "corrupt", "executed_twice"] {
            assert!(transport[field].is_u64(), "{field}");
        }
        let points = transport["points"].as_array().unwrap();
        assert_eq!(points.len(), 10);
        for (point, percent) in points.iter().zip(1..) {
            assert_eq!(point["percent"].as_f64(), Some(f64::from(percent) * 10.0));
            for field in ["size", "p50_slowdown", "p99_slowdown"] {
                assert!(point[field].is_number(), "{field}");
            }
        }
        assert!(json["offered"]["goodput_gbps"].is_number());
        assert!(json["baseline"]["points"].is_array());
    }

    #[test]
    fn is_clean_sees_every_kind_of_fault() {
        let good = example().transports.remove(0);
        assert!(good.is_clean());
        let faults: [fn(&mut TransportOutcome); 6] = [
            |t| t.load.lost = 1,
            |t| t.corrupt = 1,
            |t| t.executed_twice = 1,
            |t| t.load.held = 1,
            |t| t.load.unexpected = 1,
            |t| t.load.unsent = 1,
        ];
        for fault in faults {
            let mut bad = good.clone();
            fault(&mut bad);
            assert!(!bad.is_clean());
        }
    }
}
