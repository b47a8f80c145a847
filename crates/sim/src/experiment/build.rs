//! Which transport an experiment is about, and the worlds in which each of them runs.

use core::fmt;
use core::str::FromStr;

use bytes::Bytes;
use peyk_sansio::Prng;
use peyk_sockbuf::Pool;
use serde::{Deserialize, Serialize};

use super::{Experiment, NO_TIMERS};
use crate::host::homa::{HomaHost, OneWayHoma};
use crate::host::srpt::{self, SrptHost};
use crate::host::window::{self, WindowHost};
use crate::port::Discipline;
use crate::time::Picos;
use crate::topology::{HostId, Topology};

/// Pages of each host's pool: 4 GiB of messages under way, which take no memory.
const POOL_PAGES: u32 = 65_536;

/// Connections between two hosts at most.
const CONNECTIONS_MAX: u16 = 256;

/// A transport. Written as its name: `homa`, `tcp`, `dctcp`, `srpt`; with several connections between each two
/// hosts, `tcp:4`.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Transport {
    /// Homa as it ships.
    #[default]
    Homa,
    /// TCP: [`window`].
    Tcp {
        /// Connections between each two hosts and in each direction, 1 to 256.
        connections: u16,
    },
    /// DCTCP: [`window`].
    Dctcp {
        /// Connections between each two hosts and in each direction, 1 to 256.
        connections: u16,
    },
    /// Shortest remaining message first in every switch, after pFabric: [`srpt`](crate::host::srpt).
    Srpt,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, connections) = match *self {
            Transport::Homa => ("homa", 1),
            Transport::Srpt => ("srpt", 1),
            Transport::Tcp { connections } => ("tcp", connections),
            Transport::Dctcp { connections } => ("dctcp", connections),
        };
        f.write_str(name)?;
        if connections == 1 { Ok(()) } else { write!(f, ":{connections}") }
    }
}

impl FromStr for Transport {
    type Err = String;

    fn from_str(text: &str) -> Result<Transport, String> {
        let lower = text.to_ascii_lowercase();
        let (name, number) = lower.split_once(':').map_or((lower.as_str(), None), |(n, c)| (n, Some(c)));
        let connections = match number.map(str::parse) {
            None => 1,
            Some(Ok(n)) if (1..=CONNECTIONS_MAX).contains(&n) => n,
            Some(_) => return Err(format!("`{text}`: connections are a number from 1 to {CONNECTIONS_MAX}")),
        };
        match name {
            "tcp" => Ok(Transport::Tcp { connections }),
            "dctcp" => Ok(Transport::Dctcp { connections }),
            "homa" | "srpt" if number.is_some() => Err(format!("`{text}`: {name} has no connections")),
            "homa" => Ok(Transport::Homa),
            "srpt" => Ok(Transport::Srpt),
            _ => Err(format!("no transport `{text}`: there are homa, tcp, dctcp and srpt")),
        }
    }
}

impl TryFrom<String> for Transport {
    type Error = String;

    fn try_from(name: String) -> Result<Transport, String> {
        name.parse()
    }
}

impl From<Transport> for String {
    fn from(transport: Transport) -> String {
        transport.to_string()
    }
}

impl Transport {
    /// How switches serve its packets.
    pub fn discipline(self) -> Discipline {
        match self {
            Transport::Srpt => Discipline::LowestRank,
            _ => Discipline::StrictPriority,
        }
    }

    /// The network for it: buffers and marking thresholds that the topology leaves open are those the transport
    /// is made for.
    pub fn network(self, topology: &Topology) -> Topology {
        let (buffer, mark) = match self {
            Transport::Homa => (None, None),
            Transport::Tcp { .. } => (Some(window::BUFFER), None),
            Transport::Dctcp { .. } => (Some(window::BUFFER), Some(window::MARK)),
            Transport::Srpt => (Some(srpt::BUFFER), None),
        };
        Topology {
            buffer_bytes: topology.buffer_bytes.or(buffer),
            mark_bytes: topology.mark_bytes.or(mark),
            ..topology.clone()
        }
    }
}

/// Hosts that speak Homa.
pub fn homa(experiment: &Experiment) -> Vec<OneWayHoma> {
    let mut seed = Prng::new(experiment.seed);
    let zeros = Bytes::from(vec![0; experiment.homa.max_message as usize]);
    let now = Picos::ZERO.to_instant();
    let host = |id: HostId| {
        let pool = Pool::hollow(POOL_PAGES).expect("memory for the accounts of the pool");
        let (config, carriage) = (experiment.homa.clone(), experiment.carriage);
        let host = HomaHost::new(id, config, carriage, seed.next_u64(), pool, now);
        OneWayHoma::new(host, zeros.clone(), experiment.homa.resend_ticks < NO_TIMERS)
    };
    (0..experiment.topology.hosts()).map(host).collect()
}

/// Hosts with TCP's connections, or DCTCP's if a gain is given.
pub fn window(experiment: &Experiment, connections: u16, dctcp_gain: Option<f64>) -> Vec<WindowHost> {
    let settings = window::Settings { connections, dctcp_gain, ..experiment.window };
    (0..experiment.topology.hosts()).map(|id| WindowHost::new(id, settings)).collect()
}

/// Hosts that send the shortest remaining message first.
pub fn srpt(experiment: &Experiment) -> Vec<SrptHost> {
    (0..experiment.topology.hosts()).map(|id| SrptHost::new(id, experiment.srpt)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_str__reads_what_display_writes() {
        let tcp = |connections| Transport::Tcp { connections };
        let dctcp = |connections| Transport::Dctcp { connections };
        for (name, transport) in [
            ("homa", Transport::Homa),
            ("tcp", tcp(1)),
            ("tcp:4", tcp(4)),
            ("dctcp", dctcp(1)),
            ("dctcp:256", dctcp(256)),
            ("srpt", Transport::Srpt),
        ] {
            assert_eq!((transport.to_string().as_str(), name.parse()), (name, Ok(transport)));
        }
        assert_eq!("DCTCP".parse(), Ok(dctcp(1)));
    }

    #[test]
    fn from_str__says_what_is_wrong() {
        for (text, words) in [
            ("pigeon", "there are homa, tcp, dctcp and srpt"),
            ("", "there are homa, tcp, dctcp and srpt"),
            ("tcp:0", "a number from 1 to 256"),
            ("tcp:257", "a number from 1 to 256"),
            ("dctcp:x", "a number from 1 to 256"),
            ("homa:2", "homa has no connections"),
        ] {
            let error = text.parse::<Transport>().expect_err(text);
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn network__keeps_what_the_topology_says() {
        let given = Topology { buffer_bytes: Some(1), ..Topology::default() };
        assert_eq!(Transport::Srpt.network(&given).buffer_bytes, Some(1));
        assert_eq!(Transport::Srpt.network(&Topology::default()).buffer_bytes, Some(srpt::BUFFER));
        let dctcp = Transport::Dctcp { connections: 1 }.network(&Topology::default());
        assert_eq!((dctcp.buffer_bytes, dctcp.mark_bytes), (Some(window::BUFFER), Some(window::MARK)));
        assert_eq!(Transport::Homa.network(&Topology::default()), Topology::default());
    }
}
