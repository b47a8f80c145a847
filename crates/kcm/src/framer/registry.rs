//! Framers by name, as users write them: `resp`, `length:4be`, `line`.

use super::*;

/// Which end of a connection the messages come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// From the client: requests.
    Requests,
    /// From the server: replies.
    Replies,
}

/// A name that means no framer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown framer `{0}`; known: {known}, length:<bytes><be|le>[@offset][+adjust][=max]", known = NAMES.join(", "))]
pub struct SpecError(String);

/// All names without parameters.
pub const NAMES: [&str; 40] = [
    "thrift",
    "rsocket",
    "http2",
    "grpc",
    "resp",
    "memcached",
    "memcached-binary",
    "kafka",
    "postgres",
    "mysql",
    "mysql-compressed",
    "protobuf",
    "mqtt",
    "dns",
    "amqp",
    "amqp1",
    "cql",
    "cql5",
    "cql5-compressed",
    "nats",
    "mongodb",
    "zookeeper",
    "pulsar",
    "oncrpc",
    "9p",
    "smb2",
    "iscsi",
    "nvme",
    "tls",
    "websocket",
    "diameter",
    "bgp",
    "bgp-extended",
    "ldap",
    "capnp",
    "fix",
    "line",
    "nul",
    "http1",
    "http1-head",
];

const GIB: u64 = 1 << 30;

/// The framer of this name for one direction.
///
/// # Errors
/// There is no such name, or its parameters make no sense.
pub fn by_name(spec: &str, side: Side) -> Result<Box<dyn Framer>, SpecError> {
    if let Some(parameters) = spec.strip_prefix("length:") {
        let field = parse_length(parameters).ok_or_else(|| SpecError(spec.to_owned()))?;
        return Ok(Box::new(field));
    }
    match table(spec) {
        Some(field) => Ok(Box::new(field)),
        None => special(spec, side).ok_or_else(|| SpecError(spec.to_owned())),
    }
}

fn special(spec: &str, side: Side) -> Option<Box<dyn Framer>> {
    let is_request = side == Side::Requests;
    Some(match spec {
        "thrift" => Box::new(Thrift),
        "http2" if is_request => Box::new(Http2::client()),
        "http2" => Box::new(Http2::server()),
        "resp" if is_request => Box::new(RespCommand),
        "resp" => Box::new(RespReply),
        "memcached" => Box::new(MemcachedText),
        "kafka" => Box::new(Kafka::default()),
        "postgres" if is_request => Box::new(Postgres::client()),
        "postgres" => Box::new(Postgres::server(false)),
        "mysql" => Box::new(Mysql::new(false)),
        "mysql-compressed" => Box::new(Mysql::new(true)),
        "protobuf" => Box::new(Varint),
        "mqtt" => Box::new(Mqtt),
        "amqp" => Box::new(Amqp::zero_nine_one()),
        "amqp1" => Box::new(Amqp::one()),
        "cql" => Box::new(Cql::default()),
        "cql5" => Box::new(Cql::v5(false)),
        "cql5-compressed" => Box::new(Cql::v5(true)),
        "nats" => Box::new(Nats),
        "oncrpc" => Box::new(OncRpc),
        "iscsi" => Box::new(Iscsi::default()),
        "websocket" => Box::new(WebSocket),
        "ldap" => Box::new(Ber),
        "capnp" => Box::new(Capnp),
        "fix" => Box::new(Fix),
        "line" => Box::new(Delimiter::new(b'\n', 64 * 1024)),
        "nul" => Box::new(Delimiter::new(0, 64 * 1024)),
        "http1" if is_request => Box::new(Http1::request()),
        "http1" => Box::new(Http1::response()),
        "http1-head" if is_request => Box::new(Http1::request()),
        "http1-head" => Box::new(Http1::response_to_head()),
        _ => return None,
    })
}

/// Protocols that are a length field and a few fixed bytes.
fn table(name: &str) -> Option<LengthField> {
    use Spread::{Any, Connection, Key};
    Some(match name {
        "rsocket" => LengthField::be(0, 3).plus(3).within(9, GIB).key(3, 4, 0x7fff_ffff),
        "grpc" => LengthField::be(1, 4).plus(5).check(0, 0xff, &[0, 1]).spread_as(Key),
        "memcached-binary" => {
            LengthField::be(8, 4).plus(24).check(0, 0xff, &[0x80, 0x81]).key(12, 4, u64::MAX).spread_as(Any)
        }
        "dns" => LengthField::be(0, 2).plus(2).within(14, 65_537).key(2, 2, u64::MAX).spread_as(Any),
        "mongodb" => LengthField::le(0, 4).within(16, 48_000_000).spread_as(Any),
        "zookeeper" => LengthField::be(0, 4).plus(4).within(4, GIB).spread_as(Connection),
        "pulsar" => LengthField::be(0, 4).plus(4).within(4, GIB).spread_as(Any),
        "9p" => LengthField::le(0, 4).within(7, GIB).spread_as(Any),
        "smb2" => LengthField::be(1, 3).plus(4).check(0, 0xff, &[0]).spread_as(Any),
        "nvme" => LengthField::le(4, 4).within(8, GIB).spread_as(Any),
        "tls" => LengthField::be(3, 2)
            .plus(5)
            .within(5, 5 + 16_384 + 2_048)
            .check(0, 0xff, &[20, 21, 22, 23, 24])
            .check(1, 0xff, &[3])
            .spread_as(Connection),
        "diameter" => LengthField::be(1, 3)
            .within(20, 0xff_ffff)
            .multiple_of(4)
            .check(0, 0xff, &[1])
            .key(12, 4, u64::MAX)
            .spread_as(Any),
        "bgp" | "bgp-extended" => {
            let max = if name == "bgp" { 4096 } else { 65_535 };
            let field = LengthField::be(16, 2).within(19, max).spread_as(Connection);
            (0..16).fold(field, |field, at| field.check(at, 0xff, &[0xff]))
        }
        _ => return None,
    })
}

/// `<bytes><be|le>[@offset][+adjust | -adjust][=max]`; without an adjustment the field does not count the
/// bytes up to its own end.
fn parse_length(text: &str) -> Option<LengthField> {
    let (text, max) = match text.split_once('=') {
        Some((text, max)) => (text, max.parse().ok()?),
        None => (text, GIB),
    };
    let sign = text.find(['+', '-']);
    let (text, adjust) = match sign {
        Some(at) => (&text[..at], Some(text[at..].parse::<i32>().ok()?)),
        None => (text, None),
    };
    let (text, offset) = match text.split_once('@') {
        Some((text, offset)) => (text, offset.parse::<usize>().ok().filter(|&offset| offset <= 4096)?),
        None => (text, 0),
    };
    let (width, little) = match (text.strip_suffix("be"), text.strip_suffix("le")) {
        (Some(width), _) => (width, false),
        (_, Some(width)) => (width, true),
        _ => (text, false),
    };
    let width = width.parse::<usize>().ok().filter(|width| (1..=8).contains(width))?;
    let field = if little { LengthField::le(offset, width) } else { LengthField::be(offset, width) };
    Some(field.plus(adjust.map_or((offset + width) as i64, i64::from)).within(1, max))
}
