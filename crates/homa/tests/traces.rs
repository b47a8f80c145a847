//! Real HomaModule exchanges with our endpoint in the place of either host.
//!
//! As the server it is fed the packets of the recorded client at their times,
//! and the application answers each request with the same bytes at the time the
//! recorded server did (not before the request is complete). As the client it
//! makes the recorded requests at their times and is fed the packets of the
//! recorded server, with RPC ids and client port replaced by our own. Each host
//! is replayed from the capture taken at its own link, so what was lost on the
//! way stays lost. No packet is left out, added or reordered.
//!
//! The recorded host does not react to us: it grants and sends what it did back
//! then, whether or not we asked for it. So what is compared is what does not
//! depend on our timing: all RPCs complete with the right contents; the DATA we
//! send for the first time has the ranges, lengths, `incoming` and (if the same
//! cutoffs are known) unscheduled priorities of the recorded host's; the losses
//! draw the repairs they must. The quiet traces were recorded with long timers,
//! and are replayed with long timers.
//!
//! The traces are not part of the repository: they are looked for in
//! `$PEYK_PCAP_DIR`, else in `../shared/pcap` beside the repository. Without
//! them the tests are reported as ignored.

mod common;

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path as FilePath, PathBuf};
use std::process::ExitCode;

use common::{Sent, ms, only, pattern, resends};
use flate2::read::GzDecoder;
use libtest_mimic::{Arguments, Failed, Trial};
use peyk_homa::{Config, Endpoint, Event, Path, PeerAddr, RpcId, ServerRpc, SocketId, SocketOptions};
use peyk_sansio::Instant;
use peyk_sockbuf::{Payload, Pool};
use peyk_wire::homa::{Packet, PacketType};
use peyk_wire::pcapng::Reader;

/// Name, and whether it was recorded with long timers.
const TRACES: [(&str, bool); 8] = [
    ("00-cold-quiet", true),
    ("02-basic-quiet", true),
    ("03-ipv6-quiet", true),
    ("12-request-lost", false),
    ("13-response-lost", false),
    ("14-hole", false),
    ("16-acks-lost", false),
    ("17-slow-server", false),
];

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Role {
    Client,
    Server,
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let directory = match std::env::var_os("PEYK_PCAP_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => FilePath::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/pcap"),
    };
    let mut trials = Vec::new();
    for (name, is_quiet) in TRACES {
        for role in [Role::Client, Role::Server] {
            let file = capture(&directory, name, role);
            let is_absent = file.is_none();
            if is_absent {
                println!("SKIPPED: {name} as {role:?}: no trace in {}", directory.display());
            }
            let trial = Trial::test(format!("{name}::as_{role:?}").to_lowercase(), move || {
                let file = file.expect("ignored trials do not run");
                replay(name, is_quiet, role, &file)
            });
            trials.push(trial.with_ignored_flag(is_absent));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The capture nearest to the host of that role.
fn capture(directory: &FilePath, name: &str, role: Role) -> Option<PathBuf> {
    let file = |side| directory.join(format!("{name}.{side}.pcap.gz"));
    let sides = if role == Role::Server { ["b", "a"] } else { ["a", "b"] };
    sides.map(file).into_iter().find(|path| path.exists())
}

/// A recorded packet.
struct Record {
    at: Instant,
    is_of_client: bool,
    packet: Sent,
}

/// A recorded exchange.
struct Recording {
    records: Vec<Record>,
    /// Address of the host we do not play.
    other: SocketAddr,
    server_port: u16,
    /// By client id.
    rpcs: BTreeMap<u64, Recorded>,
}

/// What is known of a recorded RPC.
#[derive(Debug)]
struct Recorded {
    length: usize,
    requested: Instant,
    answered: Option<Instant>,
}

fn load(role: Role, file: &FilePath) -> Result<Recording, Failed> {
    let reader = Reader::new(GzDecoder::new(File::open(file)?))?;
    let raw = reader.collect::<Result<Vec<_>, _>>()?;
    let start = raw.first().ok_or("the trace is empty")?.envelope.time_ns;
    let (mut records, mut rpcs) = (Vec::new(), BTreeMap::<u64, Recorded>::new());
    let (mut other, mut server_port): (Option<IpAddr>, _) = (None, 0);
    for record in raw {
        let at = Instant::from_nanos(1_000_000_000 + record.envelope.time_ns - start);
        let packet = Sent { priority: record.envelope.priority(), bytes: record.payload };
        let header = packet.header();
        let is_of_client = header.is_from_client();
        if is_of_client == (role == Role::Server) {
            other = Some(record.envelope.source.ip());
        }
        if let Packet::Data(data) = packet.packet() {
            let length = data.message_length as usize;
            let new = Recorded { length, requested: at, answered: None };
            let rpc = rpcs.entry(header.sender_id & !1).or_insert(new);
            if is_of_client {
                server_port = header.dport;
            } else if rpc.answered.is_none() {
                rpc.answered = Some(at);
            }
        }
        records.push(Record { at, is_of_client, packet });
    }
    let other = SocketAddr::new(other.ok_or("the other host sends nothing")?, 0);
    Ok(Recording { records, other, server_port, rpcs })
}

/// Our endpoint in one of the roles.
struct Player {
    role: Role,
    now: Instant,
    endpoint: Endpoint,
    socket: SocketId,
    path: Path,
    sent: Vec<Sent>,
    /// Ids of the trace to ours and back; the same ids for a server.
    ours: BTreeMap<u64, u64>,
    theirs: BTreeMap<u64, u64>,
    /// Requests to be answered, by client id.
    requests: BTreeMap<u64, (ServerRpc, Vec<u8>)>,
    done: BTreeSet<u64>,
}

fn replay(name: &str, is_quiet: bool, role: Role, file: &FilePath) -> Result<(), Failed> {
    let recording = load(role, file)?;
    let mut player = Player::new(role, is_quiet, &recording)?;
    let mut starts: Vec<_> = recording.rpcs.iter().map(|(&id, rpc)| (rpc.requested, id)).collect();
    starts.sort();
    let mut starts = starts.into_iter().peekable();
    for record in &recording.records {
        while let Some((at, id)) = starts.next_if(|start| start.0 <= record.at) {
            if role == Role::Client {
                player.advance(at)?;
                player.request(id, &recording)?;
            }
        }
        player.advance(record.at)?;
        player.answer_due(&recording)?;
        if record.is_of_client == (role == Role::Server) {
            player.feed(&record.packet)?;
        }
    }
    // The last answers may be due after the last packet.
    player.advance(player.now + ms(20))?;
    player.answer_due(&recording)?;
    for &id in recording.rpcs.keys() {
        if !player.done.contains(&id) {
            return Err(format!("RPC {id} did not complete").into());
        }
    }
    player.compare(&recording)?;
    player.check_messages(&recording)?;
    player.check_repairs(name)?;
    player.finish()
}

impl Player {
    fn new(role: Role, is_quiet: bool, recording: &Recording) -> Result<Player, Failed> {
        let now = Instant::from_nanos(1_000_000_000);
        let long = Config { resend_ticks: 2_000, timeout_ticks: 20_000, ..Config::default() };
        let config = if is_quiet { long } else { Config::default() };
        let mut endpoint = Endpoint::new(config, 5, Pool::new(256), now)?;
        let port = (role == Role::Server).then_some(recording.server_port);
        let socket = endpoint.open_socket(port, SocketOptions::default())?;
        let path = Path { remote: recording.other, local: 0 };
        Ok(Player {
            role,
            now,
            endpoint,
            socket,
            path,
            sent: Vec::new(),
            ours: BTreeMap::new(),
            theirs: BTreeMap::new(),
            requests: BTreeMap::new(),
            done: BTreeSet::new(),
        })
    }

    /// Lets time pass, with our own time-outs.
    fn advance(&mut self, to: Instant) -> Result<(), Failed> {
        while let Some(at) = self.endpoint.poll_timeout().filter(|&at| at <= to) {
            self.now = self.now.max(at);
            self.endpoint.handle_timeout(self.now);
            self.drain()?;
        }
        self.now = self.now.max(to);
        Ok(())
    }

    /// Makes the request that the recorded client made.
    fn request(&mut self, id: u64, recording: &Recording) -> Result<(), Failed> {
        let to = PeerAddr { path: self.path, port: recording.server_port };
        let message = Payload::from(pattern(recording.rpcs[&id].length));
        let RpcId(ours) =
            self.endpoint.send_request(self.now, self.socket, to, message, Default::default())?;
        self.ours.insert(id, ours);
        self.theirs.insert(ours, id);
        self.drain()
    }

    /// Answers the requests that the recorded server has answered by now.
    fn answer_due(&mut self, recording: &Recording) -> Result<(), Failed> {
        let is_due = |id: &u64| recording.rpcs[id].answered.is_none_or(|at| at <= self.now);
        let due: Vec<u64> = self.requests.keys().copied().filter(is_due).collect();
        for id in due {
            let (rpc, message) = self.requests.remove(&id).expect("it was just there");
            self.endpoint.reply(self.now, rpc, Payload::from(message))?;
            self.drain()?;
        }
        Ok(())
    }

    /// Hands over a packet of the recorded host, in terms of our own ids and port.
    fn feed(&mut self, packet: &Sent) -> Result<(), Failed> {
        let mut bytes = packet.bytes.clone();
        if self.role == Role::Client {
            let id = packet.header().sender_id;
            let Some(ours) = self.ours.get(&(id & !1)) else {
                return Err(format!("{} belongs to no request", packet.packet()).into());
            };
            bytes[20..28].copy_from_slice(&(ours | 1).to_be_bytes());
            let port = self.endpoint.port(self.socket).ok_or("our socket is open")?;
            bytes[2..4].copy_from_slice(&port.to_be_bytes());
        }
        self.endpoint.handle_packet(self.now, &self.path, &bytes);
        self.drain()
    }

    fn drain(&mut self) -> Result<(), Failed> {
        loop {
            let mut is_quiet = true;
            while let Some(event) = self.endpoint.poll_event() {
                is_quiet = false;
                self.on_event(event)?;
            }
            while let Some(transmit) = self.endpoint.poll_transmit(self.now) {
                is_quiet = false;
                self.sent.push(Sent::new(&transmit));
            }
            if is_quiet {
                return Ok(());
            }
        }
    }

    fn on_event(&mut self, event: Event) -> Result<(), Failed> {
        match event {
            Event::Request { rpc, message, .. } => {
                let (id, message) = (rpc.id() & !1, message.to_vec());
                if message != pattern(message.len()) {
                    return Err(format!("contents of request {id}").into());
                }
                if self.requests.insert(id, (rpc, message)).is_some() || !self.done.insert(id) {
                    return Err(format!("request {id} is executed twice").into());
                }
            }
            Event::Response { rpc, message, .. } => {
                let id = self.theirs[&rpc.0];
                if message.to_vec() != pattern(message.len()) {
                    return Err(format!("contents of response {id}").into());
                }
                if !self.done.insert(id) {
                    return Err(format!("response {id} arrives twice").into());
                }
            }
            other => return Err(format!("unexpected: {}", common::world::describe(&other)).into()),
        }
        Ok(())
    }

    /// Our DATA is that of the recorded host in our place.
    fn compare(&self, recording: &Recording) -> Result<(), Failed> {
        type Original = (u64, u32, u32, u32, u32);
        let key = |sent: &Sent, id: u64| -> Original {
            let data = sent.data();
            (id, data.offset(), data.end(), data.message_length, data.incoming)
        };
        let is_original = |s: &Sent| s.kind() == PacketType::Data && !s.data().is_retransmission();
        let mut recorded = BTreeMap::new();
        for record in &recording.records {
            let is_in_our_place = record.is_of_client == (self.role == Role::Client);
            if is_in_our_place && is_original(&record.packet) {
                let id = record.packet.header().sender_id & !1;
                recorded.insert(key(&record.packet, id), &record.packet);
            }
        }
        let mut ours = BTreeMap::new();
        for sent in self.sent.iter().filter(|s| is_original(s)) {
            let id = sent.header().sender_id & !1;
            ours.insert(key(sent, self.theirs.get(&id).copied().unwrap_or(id)), sent);
        }
        if let Some(key) = recorded.keys().find(|key| !ours.contains_key(*key)) {
            return Err(format!("HomaModule sent {key:?}, we did not").into());
        }
        for (key, sent) in ours {
            let Some(twin) = recorded.get(&key) else {
                return Err(format!("we sent {key:?}, HomaModule did not").into());
            };
            let is_unscheduled = key.1 < key.4;
            let same_cutoffs = sent.data().cutoff_version == twin.data().cutoff_version;
            if is_unscheduled && same_cutoffs && sent.priority != twin.priority {
                return Err(
                    format!("{key:?}: priority {} instead of {}", sent.priority, twin.priority).into()
                );
            }
        }
        Ok(())
    }

    /// The messages we sent are whole and right.
    fn check_messages(&self, recording: &Recording) -> Result<(), Failed> {
        for (&id, rpc) in &recording.rpcs {
            let own = self.ours.get(&id).copied().unwrap_or(id);
            let mut message = vec![0u8; rpc.length];
            let mut count = 0;
            for sent in only(&self.sent, PacketType::Data) {
                let data = sent.data();
                if data.header.sender_id & !1 == own && !data.is_retransmission() {
                    let (start, end) = (data.offset() as usize, data.end() as usize);
                    message[start..end].copy_from_slice(data.payload);
                    count += end - start;
                }
            }
            if count != rpc.length || message != pattern(rpc.length) {
                return Err(format!("our message of RPC {id}: {count} of {} bytes", rpc.length).into());
            }
        }
        Ok(())
    }

    /// What the losses of the trace must have drawn from us.
    fn check_repairs(&self, name: &str) -> Result<(), Failed> {
        let count = |kind| only(&self.sent, kind).len();
        let retransmitted =
            only(&self.sent, PacketType::Data).iter().filter(|s| s.data().is_retransmission()).count();
        let all = (0, u32::MAX);
        let is_right = match (&name[..2], self.role) {
            ("00" | "02" | "03", _) => {
                resends(&self.sent).is_empty() && retransmitted == 0 && count(PacketType::Grant) > 0
            }
            // RPC_UNKNOWN does not reset the silence: a second RESEND may precede the response.
            ("12", Role::Client) => resends(&self.sent).contains(&all) && retransmitted == 1,
            ("12", Role::Server) => count(PacketType::RpcUnknown) == 1,
            // NEED_ACK before the response: not acknowledged, asked for.
            ("13", Role::Client) => resends(&self.sent)[0] == all && count(PacketType::Ack) >= 1,
            ("13", Role::Server) => retransmitted == 1,
            // Once by the timer, and once with BUSY in answer to the client's RESEND.
            ("14", Role::Server) => resends(&self.sent) == [(4272, 2848); 2],
            ("14", Role::Client) => retransmitted == 2,
            // One ACK for each NEED_ACK; as the server, NEED_ACKs that nobody answers.
            ("16", Role::Client) => count(PacketType::Ack) == 5,
            ("16", Role::Server) => count(PacketType::NeedAck) >= 2,
            ("17", Role::Client) => resends(&self.sent).iter().all(|r| *r == all),
            ("17", Role::Server) => count(PacketType::Busy) == 8,
            _ => true,
        };
        if is_right {
            return Ok(());
        }
        let control: Vec<_> = self.sent.iter().filter(|s| s.kind() != PacketType::Data).collect();
        Err(format!("repairs: {retransmitted} retransmissions, {control:?}").into())
    }

    /// When the other host is gone for good, nothing is left of it.
    fn finish(mut self) -> Result<(), Failed> {
        self.advance(self.now + ms(50_000))?;
        let left = self.endpoint.rpc_count();
        if left > 0 || self.endpoint.send_bytes() > 0 || self.endpoint.total_incoming() > 0 {
            return Err(format!("{left} RPCs are left").into());
        }
        Ok(())
    }
}
