//! Which transport an experiment is about, and the worlds in which each of them runs.

use core::fmt;
use core::str::FromStr;

use bytes::Bytes;
use peyk_sansio::Prng;
use peyk_sockbuf::Pool;
use serde::{Deserialize, Serialize};

use super::Experiment;
use crate::host::homa::{HomaHost, OneWayHoma};
use crate::host::srpt::{self, SrptHost};
use crate::port::Discipline;
use crate::time::Picos;
use crate::topology::{HostId, Topology};

/// Pages of each host's pool: 4 GiB of messages under way, which take no memory.
const POOL_PAGES: u32 = 65_536;

/// A transport. Written as its name: `homa`, `srpt`.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Transport {
    /// Homa as it ships.
    #[default]
    Homa,
    /// Shortest remaining message first in every switch, after pFabric.
    Srpt,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Homa => "homa",
            Transport::Srpt => "srpt",
        })
    }
}

impl FromStr for Transport {
    type Err = String;

    fn from_str(name: &str) -> Result<Transport, String> {
        match name.to_ascii_lowercase().as_str() {
            "homa" => Ok(Transport::Homa),
            "srpt" => Ok(Transport::Srpt),
            _ => Err(format!("no transport `{name}`: there are homa and srpt")),
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
            Transport::Homa => Discipline::StrictPriority,
            Transport::Srpt => Discipline::LowestRank,
        }
    }

    /// The network for it: buffers that the topology leaves open are those the transport is made for.
    pub fn network(self, topology: &Topology) -> Topology {
        let buffer = match self {
            Transport::Homa => None,
            Transport::Srpt => Some(srpt::BUFFER),
        };
        Topology { buffer_bytes: topology.buffer_bytes.or(buffer), ..topology.clone() }
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
        OneWayHoma::new(host, zeros.clone())
    };
    (0..experiment.topology.hosts()).map(host).collect()
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
        for transport in [Transport::Homa, Transport::Srpt] {
            assert_eq!(transport.to_string().parse(), Ok(transport));
        }
        assert_eq!(
            "pigeon".parse::<Transport>(),
            Err("no transport `pigeon`: there are homa and srpt".into())
        );
    }

    #[test]
    fn network__keeps_what_the_topology_says() {
        let given = Topology { buffer_bytes: Some(1), ..Topology::default() };
        assert_eq!(Transport::Srpt.network(&given).buffer_bytes, Some(1));
        assert_eq!(Transport::Srpt.network(&Topology::default()).buffer_bytes, Some(srpt::BUFFER));
        assert_eq!(Transport::Homa.network(&Topology::default()), Topology::default());
    }
}
