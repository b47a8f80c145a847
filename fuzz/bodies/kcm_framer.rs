//! Any bytes to any framer, in any pieces: it contradicts neither itself nor the rules of framers.

use peyk_kcm::framer::{NAMES, Resume, Side, Verdict, by_name};

/// Does what the target claims with one input; panics where the claim fails. The first byte names the
/// framer and the side, the second the size of the pieces.
pub fn run(bytes: &[u8]) {
    let [choice, piece, stream @ ..] = bytes else { return };
    let name = NAMES[usize::from(choice >> 1) % NAMES.len()];
    let side = if choice & 1 == 0 { Side::Requests } else { Side::Replies };
    let mut framer = by_name(name, side).expect("it is one of the names");
    let piece = usize::from(*piece).max(1);
    let mut stream = &stream[..stream.len().min(4096)];
    for _ in 0..64 {
        let (mut resume, mut end, mut known) = (Resume::default(), 0, None);
        while end < stream.len() {
            end = (end + piece).min(stream.len());
            let verdict = framer.frame(&stream[..end], &mut resume);
            let alone = framer.frame(&stream[..end], &mut Resume::default());
            assert_eq!(alone, verdict, "{name}: what it remembers changes what it says");
            match verdict {
                Verdict::Need(need) => assert!(need > end, "{name} needs {need} of {end}"),
                Verdict::Len(frame) => {
                    assert!(frame.total > 0, "{name}: a message of nothing");
                    known = Some(frame);
                    break;
                }
                Verdict::Bad(error) => {
                    assert!(error.code.0 > 0 && !error.why.is_empty());
                    return;
                }
            }
        }
        let Some(frame) = known else { return };
        let whole = framer.frame(stream, &mut Resume::default());
        assert_eq!(whole, Verdict::Len(frame), "{name}: more bytes change the length");
        let Some(rest) = usize::try_from(frame.total).ok().and_then(|total| stream.get(total..)) else {
            return;
        };
        framer.finished(&stream[..stream.len() - rest.len()]);
        stream = rest;
    }
}
