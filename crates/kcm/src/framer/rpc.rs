//! ONC RPC over TCP (NFS): fragments with 31 bits of length, the top bit marks the last.

use super::{Frame, Framer, Meta, Resume, Spread, Verdict, be};

/// Records of ONC RPC; all fragments of one are one message, keyed by its transaction id.
#[derive(Clone, Copy, Debug, Default)]
pub struct OncRpc;

/// Fragments are there to be few.
const FRAGMENTS_MAX: u64 = 1024;

impl Framer for OncRpc {
    fn frame(&mut self, bytes: &[u8], resume: &mut Resume) -> Verdict {
        loop {
            let Some(mark) = bytes.get(resume.at..resume.at + 4).map(be) else {
                return Verdict::Need(resume.at + 4);
            };
            let end = resume.at + 4 + (mark & 0x7fff_ffff) as usize;
            if mark & 0x8000_0000 != 0 {
                let key =
                    bytes.get(4..8).filter(|_| end >= 8 && bytes[0] & 0x80 != 0).map(|xid| be(xid) as u32);
                if key.is_none() && end >= 8 && bytes.len() < 8 {
                    return Verdict::Need(8);
                }
                return Verdict::Len(Frame { total: end as u64, meta: Meta { key, class: 0, header: 4 } });
            }
            resume.state += 1;
            if resume.state >= FRAGMENTS_MAX {
                return Verdict::broken("a record of more than 1024 fragments");
            }
            resume.at = end;
        }
    }

    fn spread(&self) -> Spread {
        Spread::Any
    }

    fn fresh(&self) -> Box<dyn Framer> {
        Box::new(*self)
    }
}
