//! What the queues of a port hold and have lost, read from `tc -s -j`.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{LEVELS, tools};

/// One end of a cable.
#[derive(Clone, Debug, Serialize)]
pub struct Port {
    /// The host at this cable, counted from 1.
    pub host: usize,
    /// Whether it is the switch's end, which sends to the host.
    pub switch: bool,
    /// Bytes sent.
    pub bytes: u64,
    /// Packets sent.
    pub packets: u64,
    /// The queues, lowest level first.
    pub queues: Vec<Queue>,
    /// Packets lost on purpose.
    pub lost: u64,
}

/// One of the queues of a port.
#[derive(Copy, Clone, Default, Debug, Serialize)]
pub struct Queue {
    /// Packets that wait.
    pub waiting: u32,
    /// Packets sent.
    pub sent: u64,
    /// Packets dropped because the queue was full.
    pub dropped: u64,
}

impl Port {
    /// Packets dropped because a queue was full.
    pub fn dropped(&self) -> u64 {
        self.queues.iter().map(|q| q.dropped).sum()
    }

    /// Packets that wait in all queues.
    pub fn waiting(&self) -> u32 {
        self.queues.iter().map(|q| q.waiting).sum()
    }
}

/// A discipline as `tc` describes it.
#[derive(Deserialize)]
struct Discipline {
    kind: String,
    #[serde(default)]
    parent: String,
    #[serde(default)]
    bytes: u64,
    #[serde(default)]
    packets: u64,
    #[serde(default)]
    drops: u64,
    #[serde(default)]
    qlen: u32,
}

/// Reads a port.
pub fn port(namespace: &str, device: &str, host: usize, switch: bool) -> Result<Port> {
    let text = tools::tc(&["-n", namespace, "-s", "-j", "qdisc", "show", "dev", device])?;
    parse(&text, host, switch).with_context(|| format!("reading the queues of {device} in {namespace}"))
}

fn parse(text: &str, host: usize, switch: bool) -> Result<Port> {
    let disciplines: Vec<Discipline> = serde_json::from_str(text)?;
    let root = disciplines.iter().find(|d| d.kind == "htb").context("there is no HTB")?;
    let mut port = Port {
        host,
        switch,
        bytes: root.bytes,
        packets: root.packets,
        queues: vec![Queue::default(); usize::from(LEVELS)],
        lost: 0,
    };
    for leaf in disciplines.iter().filter(|d| d.kind == "pfifo") {
        match leaf.parent.strip_prefix("1:1").map(str::parse::<usize>) {
            Some(Ok(below)) if below < usize::from(LEVELS) => {
                port.queues[usize::from(LEVELS) - 1 - below] =
                    Queue { waiting: leaf.qlen, sent: leaf.packets, dropped: leaf.drops };
            }
            _ => port.lost += leaf.drops,
        }
    }
    Ok(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_puts_the_queues_in_order_of_level() {
        let text = r#"[{"kind":"htb","handle":"1:","root":true,"bytes":1356,"packets":16,"drops":4,"qlen":2},
            {"kind":"pfifo","handle":"802b:","parent":"1:17","bytes":0,"packets":9,"drops":1,"qlen":2},
            {"kind":"pfifo","handle":"8029:","parent":"1:10","bytes":0,"packets":7,"drops":0,"qlen":0},
            {"kind":"pfifo","handle":"802d:","parent":"1:99","packets":0,"drops":3,"qlen":0}]"#;
        let port = parse(text, 2, true).unwrap();
        assert_eq!((port.packets, port.dropped(), port.waiting(), port.lost), (16, 1, 2, 3));
        assert_eq!((port.queues[0].sent, port.queues[7].sent), (9, 7));
        assert!(parse("[]", 1, false).is_err());
        assert!(parse("nonsense", 1, false).is_err());
    }
}
