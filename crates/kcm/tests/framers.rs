//! Every framer: streams of known messages, the traps of each protocol, and the properties all share. Case
//! 86 of kcm.md part 3 is here, too.
#![allow(non_snake_case)]

use peyk_kcm::error::Code;
use peyk_kcm::framer::*;
use peyk_sansio::Prng;

/// Streams: name, side, messages one after the other.
type Streams = Vec<(&'static str, Side, Vec<Vec<u8>>)>;

fn v(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn pad(head: &[u8], n: usize) -> Vec<u8> {
    [head, &vec![0x55; n]].concat()
}

fn small(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

fn h2(kind: u8, flags: u8, stream: u8, n: u8) -> Vec<u8> {
    pad(&[0, 0, n, kind, flags, 0, 0, 0, stream], n.into())
}

fn iscsi(ahs: u8, data: u8, rest: usize) -> Vec<u8> {
    let mut header = vec![0; 48];
    (header[4], header[7]) = (ahs, data);
    pad(&header, rest)
}

fn bgp(n: u16) -> Vec<u8> {
    pad(&v(&[&[0xff; 16], &n.to_be_bytes()]), n as usize - 18)
}

fn amqp(n: u8) -> Vec<u8> {
    v(&[&[1, 0, 1, 0, 0, 0, n], &vec![7; n.into()], &[0xce]])
}

/// A packet of 16 MiB less one byte and what continues it.
fn mysql_long() -> Vec<u8> {
    v(&[&[0xff, 0xff, 0xff, 0], &vec![1; 0xff_ffff], &[2, 0, 0, 1, 9, 9]])
}

fn streams() -> Streams {
    let all = [
        rpc_streams(),
        resp_streams(),
        memcached_streams(),
        databases_streams(),
        files_streams(),
        text_streams(),
    ];
    let mut streams: Streams = all.into_iter().flatten().collect();
    let thrift = streams.iter_mut().find(|(name, _, _)| *name == "thrift").expect("it is there");
    thrift.2[1][..4].copy_from_slice(&0x4249_4721u32.to_be_bytes());
    streams
}

fn rpc_streams() -> Streams {
    use Side::{Replies, Requests};
    vec![
        ("thrift", Requests, vec![pad(&[0, 0, 0, 5], 5), pad(b"BIGF\0\0\0\0\0\0\0\x03", 3)]),
        ("rsocket", Requests, vec![pad(&[0, 0, 9], 9), pad(&[0, 0, 6], 6)]),
        (
            "http2",
            Requests,
            vec![
                small("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
                h2(4, 0, 0, 6),
                v(&[&h2(1, 0, 1, 8), &h2(9, 0, 1, 3), &h2(9, 4, 1, 1)]),
                h2(0, 1, 1, 200),
            ],
        ),
        ("http2", Replies, vec![h2(4, 0, 0, 0), h2(1, 4, 1, 3), h2(0, 0, 1, 100)]),
        ("grpc", Requests, vec![pad(&[0, 0, 0, 0, 2], 2), pad(&[1, 0, 0, 0, 0], 0)]),
        (
            "resp",
            Requests,
            vec![
                small("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nv\r\nvv\r\n"),
                small("PING\r\n"),
                small("*1\r\n$0\r\n\r\n"),
                small("*0\r\n"),
                small("*-1\r\n"),
                small("\r\n"),
            ],
        ),
        (
            "resp",
            Replies,
            vec![
                small("+OK\r\n"),
                small("-ERR x\r\n"),
                small(":12\r\n"),
                small("$-1\r\n"),
                small("$3\r\na\r\n\r\n"),
                small("*-1\r\n"),
                small("*2\r\n*1\r\n:1\r\n$1\r\nx\r\n"),
                small("*0\r\n"),
                small("%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n_\r\n"),
                small("|1\r\n+ttl\r\n:3\r\n*2\r\n:1\r\n:2\r\n"),
                small("*1\r\n|1\r\n+k\r\n+v\r\n:7\r\n"),
                small(">2\r\n+message\r\n=7\r\ntxt:abc\r\n"),
                small("~1\r\n#t\r\n"),
                small("(123\r\n"),
                small(",1.5\r\n"),
                small("!5\r\nERR x\r\n"),
            ],
        ),
    ]
}

fn resp_streams() -> Streams {
    use Side::{Replies, Requests};
    vec![
        (
            "memcached",
            Requests,
            vec![
                small("get a b c\r\n"),
                small("set k 0 0 5\r\nab\r\nc\r\n"),
                small("cas k 0 0 2 77\r\nhi\r\n"),
                small("ms k 3 T0\r\nabc\r\n"),
                small("mg k v\r\n"),
                small("quit\r\n"),
            ],
        ),
        (
            "memcached",
            Replies,
            vec![
                small("VALUE k 0 3\r\nEND\r\n"),
                small("END\r\n"),
                small("VA 2 s2\r\nhi\r\n"),
                small("HD\r\n"),
            ],
        ),
        (
            "memcached-binary",
            Requests,
            vec![pad(&[0x80, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2], 14), {
                let mut header = vec![0; 24];
                header[0] = 0x81;
                header
            }],
        ),
    ]
}

fn memcached_streams() -> Streams {
    use Side::{Replies, Requests};
    vec![
        ("kafka", Requests, vec![pad(&[0, 0, 0, 8], 8), pad(&[0, 0, 0, 0], 0)]),
        (
            "postgres",
            Requests,
            vec![
                vec![0, 0, 0, 8, 4, 210, 22, 47],
                pad(&[0, 0, 0, 13, 0, 3, 0, 0], 5),
                pad(&[b'Q', 0, 0, 0, 6], 2),
                vec![b'X', 0, 0, 0, 4],
            ],
        ),
        ("postgres", Replies, vec![pad(&[b'R', 0, 0, 0, 8], 4), vec![b'Z', 0, 0, 0, 5, b'I']]),
        ("mysql", Requests, vec![pad(&[3, 0, 0, 0], 3), mysql_long(), pad(&[0, 0, 0, 9], 0)]),
        ("mysql-compressed", Requests, vec![pad(&[3, 0, 0, 0, 0, 0, 0], 3)]),
    ]
}

fn databases_streams() -> Streams {
    use Side::{Replies, Requests};
    vec![
        ("protobuf", Requests, vec![pad(&[0xac, 0x02], 300), vec![0], pad(&[1], 1)]),
        (
            "mqtt",
            Requests,
            vec![pad(&[0x10, 4], 4), pad(&[0x30, 0x88, 1, 0, 3, b'a', b'/', b'b'], 131), vec![0xc0, 0]],
        ),
        ("dns", Requests, vec![pad(&[0, 12], 12), pad(&[0, 20], 20)]),
        ("amqp", Requests, vec![small("AMQP\0\0\x09\x01"), amqp(0), amqp(5)]),
        (
            "amqp1",
            Requests,
            vec![small("AMQP\0\x01\0\0"), vec![0, 0, 0, 8, 2, 0, 0, 0], pad(&[0, 0, 0, 11, 2, 0, 0, 1], 3)],
        ),
        ("cql", Requests, vec![pad(&[4, 0, 0, 1, 1, 0, 0, 0, 2], 2), pad(&[1, 0, 0, 5, 0, 0, 0, 3], 3)]),
        ("cql5", Requests, vec![pad(&[5, 0, 2, 0, 0, 0], 9)]),
        ("cql5-compressed", Requests, vec![pad(&[5, 0, 2, 0, 0, 0, 0, 0], 9)]),
        (
            "nats",
            Requests,
            vec![
                small("CONNECT {}\r\n"),
                small("PUB a.b 5\r\nhello\r\n"),
                small("HPUB a.b 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"),
                small("ping\r\n"),
            ],
        ),
        ("nats", Replies, vec![small("MSG a 1 2\r\nhi\r\n"), small("MSG a 1 r 0\r\n\r\n"), small("+OK\r\n")]),
        ("mongodb", Requests, vec![pad(&[16, 0, 0, 0], 12), pad(&[30, 0, 0, 0], 26)]),
        ("zookeeper", Requests, vec![pad(&[0, 0, 0, 3], 3)]),
    ]
}

fn files_streams() -> Streams {
    use Side::Requests;
    vec![
        ("pulsar", Requests, vec![pad(&[0, 0, 0, 4], 4)]),
        (
            "oncrpc",
            Requests,
            vec![pad(&[0x80, 0, 0, 8], 8), v(&[&pad(&[0, 0, 0, 4], 4), &pad(&[0x80, 0, 0, 2], 2)])],
        ),
        ("9p", Requests, vec![vec![7, 0, 0, 0, 1, 0, 0], pad(&[10, 0, 0, 0], 6)]),
        ("smb2", Requests, vec![pad(&[0, 0, 0, 64], 64)]),
        ("iscsi", Requests, vec![iscsi(0, 0, 0), iscsi(1, 5, 12)]),
        ("nvme", Requests, vec![pad(&[0, 0, 8, 0, 24, 0, 0, 0], 16)]),
        ("tls", Requests, vec![pad(&[22, 3, 1, 0, 6], 6), pad(&[23, 3, 3, 0, 1], 1)]),
        (
            "websocket",
            Requests,
            vec![
                pad(&[0x81, 0x83, 1, 2, 3, 4], 3),
                pad(&[0x82, 126, 0, 200], 200),
                pad(&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0], 65536),
                vec![0x89, 0],
            ],
        ),
        ("diameter", Requests, vec![pad(&[1, 0, 0, 20], 16), pad(&[1, 0, 0, 24], 20)]),
        ("bgp", Requests, vec![bgp(19), bgp(29)]),
        ("bgp-extended", Requests, vec![bgp(5000)]),
    ]
}

fn text_streams() -> Streams {
    use Side::{Replies, Requests};
    vec![
        (
            "ldap",
            Requests,
            vec![pad(&[0x30, 3], 3), pad(&[0x30, 0x82, 1, 0], 256), pad(&[0x30, 0x84, 0, 0, 0, 1], 1)],
        ),
        (
            "capnp",
            Requests,
            vec![
                pad(&[0, 0, 0, 0, 2, 0, 0, 0], 16),
                pad(&[1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], 16),
            ],
        ),
        (
            "fix",
            Requests,
            vec![small("8=FIX.4.2\x019=5\x0135=0\x0110=161\x01"), small("8=FIX.4.4\x019=0\x0110=000\x01")],
        ),
        ("line", Requests, vec![small("hello\n"), small("\n")]),
        ("nul", Requests, vec![small("hello\0"), small("\0")]),
        (
            "http1",
            Requests,
            vec![
                small("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
                small("POST / HTTP/1.1\r\ncontent-LENGTH: 3\r\n\r\nabc"),
                small(
                    "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5;x=y\r\nab\r\nc\r\n0\r\nTrailer: 1\r\n\r\n",
                ),
                small("GET / HTTP/1.0\n\n"),
            ],
        ),
        (
            "http1",
            Replies,
            vec![
                small("HTTP/1.1 100 Continue\r\n\r\n"),
                small("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
                small("HTTP/1.1 204 No Content\r\n\r\n"),
                small("HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"),
            ],
        ),
        ("http1-head", Replies, vec![small("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")]),
        ("length:2le@1+3=100", Requests, vec![pad(&[9, 4, 0], 4)]),
        ("length:4be", Requests, vec![pad(&[0, 0, 0, 1], 1)]),
    ]
}

fn framer(name: &str, side: Side) -> Box<dyn Framer> {
    by_name(name, side).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn names__all_have_a_stream_here() {
    let streams = streams();
    for name in NAMES {
        assert!(streams.iter().any(|(other, _, _)| *other == name), "no stream for {name}");
    }
    for wrong in ["", "x", "length:", "length:9be", "length:4be@5000", "length:4be+x", "resp "] {
        assert!(by_name(wrong, Side::Requests).is_err(), "{wrong}");
    }
}

/// Lengths found when all bytes are there at once.
fn whole(framer: &mut dyn Framer, mut bytes: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while !bytes.is_empty() {
        match framer.frame(bytes, &mut Resume::default()) {
            Verdict::Len(frame) => {
                let total = frame.total as usize;
                assert!(total <= bytes.len(), "{total} of {}", bytes.len());
                framer.finished(&bytes[..total]);
                lengths.push(total);
                bytes = &bytes[total..];
            }
            other => panic!("{other:?} at {:?}", &bytes[..bytes.len().min(40)]),
        }
    }
    lengths
}

#[test]
fn streams__are_framed_as_they_were_made() {
    for (name, side, messages) in streams() {
        let lengths: Vec<usize> = messages.iter().map(Vec::len).collect();
        assert_eq!(whole(&mut *framer(name, side), &messages.concat()), lengths, "{name} {side:?}");
        let mut fresh = framer(name, side);
        whole(&mut *fresh, &messages.concat());
        assert_eq!(whole(&mut *fresh.fresh(), &messages.concat()), lengths, "{name}: fresh");
    }
}

/// Says once `Len`, for every longer prefix the same; before, `Need` more than there is and no more than
/// the message has. With and without what `Resume` remembers.
fn check_monotone(name: &str, framer: &mut dyn Framer, message: &[u8], after: &[u8]) {
    let stream = [message, after].concat();
    let mut resume = Resume::default();
    let mut known = None;
    let step = if message.len() > 3000 { 997 } else { 1 };
    for end in (1..=stream.len()).step_by(step) {
        let alone = framer.frame(&stream[..end], &mut Resume::default());
        if known.is_none() {
            let kept = framer.frame(&stream[..end], &mut resume);
            assert_eq!(kept, alone, "{name}: memory changes the answer at {end}");
        }
        match alone {
            Verdict::Len(frame) => {
                assert_eq!(frame.total, message.len() as u64, "{name} at {end}");
                assert_eq!(*known.get_or_insert(frame), frame, "{name} at {end}");
            }
            Verdict::Need(need) => {
                assert!(known.is_none(), "{name}: knew the length and forgot it at {end}");
                assert!(need > end && need <= message.len(), "{name}: needs {need} at {end}");
            }
            Verdict::Bad(error) => panic!("{name} at {end}: {error}"),
        }
    }
    assert!(known.is_some() || step > 1, "{name}: the whole message is not one");
}

#[test]
fn monotone__for_every_prefix() {
    for (name, side, messages) in streams() {
        let mut framer = framer(name, side);
        for (i, message) in messages.iter().enumerate() {
            let after: &[u8] = messages.get(i + 1).map_or(&[], |next| &next[..next.len().min(50)]);
            check_monotone(name, &mut *framer, message, after);
            framer.finished(message);
        }
    }
}

#[test]
fn monotone__for_mutated_bytes() {
    // Whatever the bytes, a framer neither panics nor contradicts itself.
    let mut prng = Prng::new(4);
    for (name, side, messages) in streams() {
        let stream: Vec<u8> = messages.concat().into_iter().take(400).collect();
        for _ in 0..200 {
            let mut bytes = stream.clone();
            for _ in 0..prng.between(1, 4) {
                let at = prng.below(bytes.len() as u64) as usize;
                bytes[at] = *prng
                    .pick(&[0, 1, 0x7f, 0x80, 0xff, b'\r', b'\n', b'9', prng.clone().next_u32() as u8])
                    .unwrap();
            }
            let mut framer = framer(name, side);
            let mut known: Option<Verdict> = None;
            for end in 1..=bytes.len() {
                let verdict = framer.frame(&bytes[..end], &mut Resume::default());
                match (known, verdict) {
                    (Some(before), _) => assert_eq!(before, verdict, "{name} at {end} of {bytes:x?}"),
                    (None, Verdict::Need(need)) => assert!(need > end, "{name}"),
                    (None, Verdict::Len(frame)) => {
                        assert!(frame.total > 0, "{name}");
                        known = Some(verdict);
                    }
                    (None, Verdict::Bad(error)) => {
                        assert!(!error.why.is_empty() && error.code.0 > 0);
                        break;
                    }
                }
            }
        }
    }
}

fn bad(name: &str, side: Side, bytes: &[u8]) -> Code {
    match framer(name, side).frame(bytes, &mut Resume::default()) {
        Verdict::Bad(error) => error.code,
        other => panic!("{name}: {other:?} for {bytes:x?}"),
    }
}

#[test]
fn case_086__lengths_at_the_edges() {
    for (value, name) in [0x7fff_ffffu32, 0x8000_0000, 0xffff_fffc, 0xffff_ffff]
        .iter()
        .flat_map(|v| ["thrift", "kafka", "grpc", "zookeeper", "mongodb", "9p", "postgres"].map(|n| (*v, n)))
    {
        let little = matches!(name, "mongodb" | "9p");
        let word = if little { value.to_le_bytes() } else { value.to_be_bytes() };
        let bytes = match name {
            "grpc" => [&[0], &word[..]].concat(),
            "postgres" => [b"Q", &word[..]].concat(),
            _ => word.to_vec(),
        };
        let side = if name == "postgres" { Side::Replies } else { Side::Requests };
        // Either refused at once, or a length that is what it says: never a wrapped one, never "more".
        match framer(name, side).frame(&bytes, &mut Resume::default()) {
            Verdict::Bad(error) => assert!(matches!(error.code, Code::PROTO | Code::MSGSIZE), "{name}"),
            Verdict::Len(frame) => assert!(frame.total >= u64::from(value), "{name}: {}", frame.total),
            Verdict::Need(_) => panic!("{name} waits for more of {value:#x}"),
        }
    }
}

#[test]
fn traps__are_refused_at_once() {
    use Side::{Replies, Requests};
    let proto = [
        ("thrift", Requests, &b"\x80\x01\0\x01"[..]),
        ("mongodb", Requests, b"\x0f\0\0\0"),
        ("9p", Requests, b"\x06\0\0\0"),
        ("postgres", Replies, b"Z\0\0\0\x03"),
        ("postgres", Requests, b"\0\0\0\x07"),
        ("postgres", Requests, b"\0\0\x27\x11"),
        ("memcached-binary", Requests, b"\x42"),
        ("mqtt", Requests, b"\x10\xff\xff\xff\xff"),
        ("mqtt", Requests, b"\x00"),
        ("protobuf", Requests, b"\xff\xff\xff\xff\xff"),
        ("websocket", Requests, b"\x89\x7e"),
        ("websocket", Requests, b"\x83\x00"),
        ("bgp", Requests, b"\xff\xff\xfe"),
        ("diameter", Requests, b"\x01\0\0\x15"),
        ("ldap", Requests, b"\x30\x80"),
        ("ldap", Requests, b"\x30\x85\0\0"),
        ("resp", Requests, b"*x\r\n"),
        ("resp", Requests, b"*1\r\n+OK\r\n"),
        ("resp", Replies, b"?\r\n"),
        ("resp", Replies, b"$x\r\n"),
        ("memcached", Requests, b"set k 0 0 x\r\n"),
        ("nats", Requests, b"PUB a x\r\n"),
        ("fix", Requests, b"8=FIX.4.2\x0135=0\x01"),
        ("http1", Requests, b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"),
        ("http1", Requests, b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
        ("http1", Requests, b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("http1", Replies, b"HTTP/1.1 200 OK\r\n\r\n"),
        ("http2", Requests, b"GET / HTTP/1.1"),
        ("amqp", Requests, b"AMXX"),
        ("capnp", Requests, b"\xff\xff\0\0"),
        ("cql", Requests, b"\x09"),
        ("tls", Requests, b"GET"),
        ("smb2", Requests, b"\x01"),
    ];
    for (name, side, bytes) in proto {
        assert_eq!(bad(name, side, bytes), Code::PROTO, "{name}: {bytes:x?}");
    }
    let big = [
        ("http2", Replies, vec![0, 0x40, 1, 0, 0, 0, 0, 0, 1]),
        ("kafka", Requests, vec![0x7f, 0xff, 0xff, 0xff]),
        ("mongodb", Requests, vec![0xff, 0xff, 0xff, 0x7f]),
        ("tls", Requests, vec![23, 3, 3, 0xff, 0xff]),
        ("resp", Requests, b"*1\r\n$999999999999\r\n".to_vec()),
        ("line", Requests, vec![b'x'; 70_000]),
        ("http1", Requests, vec![b'x'; 70_000]),
        ("memcached", Requests, vec![b'x'; 70_000]),
        ("resp", Replies, [b"+".to_vec(), vec![b'x'; 70_000]].concat()),
    ];
    for (name, side, bytes) in big {
        assert_eq!(bad(name, side, &bytes), Code::MSGSIZE, "{name}");
    }
    // Nested for ever.
    assert_eq!(bad("resp", Replies, &b"*1\r\n".repeat(200)), Code::PROTO);
    assert_eq!(
        bad(
            "http2",
            Replies,
            &b"\0\0\0\x01\0\0\0\0\x01"
                .iter()
                .copied()
                .chain(b"\0\0\0\x09\0\0\0\0\x01".repeat(70))
                .collect::<Vec<u8>>()
        ),
        Code::MSGSIZE
    );
}

#[test]
fn keys__tell_streams_topics_and_ids_apart() {
    let key =
        |name: &str, bytes: &[u8]| match framer(name, Side::Replies).frame(bytes, &mut Resume::default()) {
            Verdict::Len(frame) => frame.meta.key,
            other => panic!("{other:?}"),
        };
    assert_eq!(key("http2", &[0, 0, 0, 0, 0, 0, 0, 0, 5]), Some(5));
    assert_eq!(key("rsocket", &[0, 0, 6, 0, 0, 0, 7, 0, 0]), Some(7));
    assert_eq!(key("mqtt", b"\x30\x04\0\x01ax"), key("mqtt", b"\x30\x05\0\x01axy"));
    assert_ne!(key("mqtt", b"\x30\x04\0\x01ax"), key("mqtt", b"\x30\x04\0\x01bx"));
    assert_eq!(key("nats", b"MSG a 1 0\r\n\r\n"), key("nats", b"MSG a 2 1\r\nx\r\n"));
    assert_eq!(framer("kafka", Side::Requests).spread(), Spread::Connection);
    assert_eq!(framer("thrift", Side::Requests).spread(), Spread::Any);
}

/// Messages at once are the same as one by one, whatever the field.
#[test]
fn length_field__many_at_once_are_the_same_as_one_by_one() {
    let mut prng = Prng::new(5);
    let mut found = 0;
    for round in 0..20_000 {
        let (offset, width) = (prng.below(3) as usize, prng.between(1, 8) as usize);
        let field =
            if prng.chance(0.5) { LengthField::be(offset, width) } else { LengthField::le(offset, width) };
        let mut framer = field
            .plus(prng.below(20) as i64 - 4)
            .unit(prng.between(1, 3))
            .within(prng.below(4), prng.between(5, 60))
            .mask(*prng.pick(&[u64::MAX, 0x0f, 0xff]).unwrap())
            .multiple_of(*prng.pick(&[1, 1, 2]).unwrap());
        if prng.chance(0.2) {
            framer = framer.key(offset, 2, 0xffff);
        }
        if prng.chance(0.2) {
            framer = framer.check(0, 0xff, &[0, 1, 2, 3]);
        }
        let bytes: Vec<u8> = (0..prng.below(80)).map(|_| *prng.pick(&[0, 0, 1, 5, 9]).unwrap()).collect();
        let (most, longest) = (prng.below(6) as usize, prng.between(1, 70) as usize);
        let mut lengths = Vec::new();
        let taken = framer.frame_all(&bytes, (most, longest), &mut Resume::default(), &mut lengths);
        let (mut at, mut expected) = (0, Vec::new());
        while expected.len() < most
            && let Verdict::Len(frame) = framer.frame(&bytes[at..], &mut Resume::default())
            && frame.total > 0
            && frame.total <= longest.min(bytes.len() - at) as u64
        {
            expected.push(frame.total as u32);
            at += frame.total as usize;
        }
        assert_eq!((taken, &lengths), (at, &expected), "round {round}: {framer:?} on {bytes:?}");
        found += expected.len();
    }
    assert!(found > 3_000, "{found}");
}
