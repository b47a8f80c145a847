//! What a transport is to the world: one instance per host, driven like any sans-I/O protocol.

use peyk_sansio::{Instant, Prng};

use crate::packet::Packet;
use crate::topology::HostId;

pub mod homa;
pub mod srpt;
pub mod window;

/// The transport of one host. One mutation, then the world drains outcomes and packets and asks for the next
/// deadline.
pub trait Host {
    /// What its packets carry.
    type Body: Clone;
    /// What it tells its application.
    type Outcome;

    /// A packet for this host has arrived.
    fn handle_packet(&mut self, now: Instant, packet: Packet<Self::Body>);
    /// A deadline has come.
    fn handle_timeout(&mut self, now: Instant);
    /// The next packet to send. The world asks when the link is free, so this is the moment of choice.
    fn poll_transmit(&mut self, now: Instant) -> Option<Packet<Self::Body>>;
    /// What the application should know.
    fn poll_outcome(&mut self) -> Option<Self::Outcome>;
    /// When [`handle_timeout`](Host::handle_timeout) wants to be called at the latest.
    fn poll_timeout(&self) -> Option<Instant>;
    /// Whether it holds back senders although their bytes would be welcome: idle time of the host's link is
    /// then wasted.
    fn is_withholding(&self) -> bool {
        false
    }
    /// Spoils a packet on the way. False if that cannot be told from its loss.
    fn corrupt(_packet: &mut Packet<Self::Body>, _random: &mut Prng) -> bool {
        false
    }
}

/// A message that has arrived whole.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Delivered {
    /// Its sender.
    pub from: HostId,
    /// Which of its sender's messages.
    pub key: u64,
}

/// Transports that carry one-way messages, for experiments.
pub trait OneWay: Host<Outcome = Delivered> {
    /// Sends a message of so many bytes; gives its key, unique among those of this host. `None` if the
    /// transport refuses it.
    fn send(&mut self, now: Instant, to: HostId, bytes: u32) -> Option<u64>;
    /// The message has been delivered, as its sender may learn at no cost.
    fn finish(&mut self, key: u64);
}
