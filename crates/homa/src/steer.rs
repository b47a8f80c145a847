//! Which shard of a host a packet belongs to, decided by the packet alone. A packet filter in the
//! kernel computes the same; see [`PROGRAM_OPERANDS`].
//!
//! ```text
//!   packets to a client   the shard that made the id: its own byte, see RpcId
//!   packets to a server   by the id: 64 consecutive ids of a client go to the same shard, so that
//!                         small requests that leave together arrive together
//! ```
//!
//! Both take the remainder by the number of shards, so every packet has an owner.

/// Where the sender's id stands in a packet, in bytes.
const ID_AT: usize = 20;
/// Consecutive ids of a client that go to the same shard of a server: 2 to this power.
pub const BLOCK_BITS: u32 = 6;

/// Where a filter finds what it needs, in bytes from the start of the Homa header: the lowest byte
/// of the id, whose bit 0 is set by servers; the byte of the client's shard; the lowest 16 bits of
/// the id, to be shifted by one more than [`BLOCK_BITS`]; and the 32 bits of the epoch, which are
/// added. Big-endian, wrapping at 32 bits.
pub const PROGRAM_OPERANDS: [u32; 4] = [ID_AT as u32 + 7, ID_AT as u32 + 4, ID_AT as u32 + 6, ID_AT as u32];

/// The shard, of `shards`, that a packet is for. Packets too short for an id go to shard 0, which
/// drops and counts them.
#[inline]
pub fn shard_of_packet(packet: &[u8], shards: u8) -> u8 {
    let id = packet.get(ID_AT..ID_AT + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
    id.map_or(0, |sender_id| shard_of_sender_id(sender_id, shards))
}

/// As [`shard_of_packet`], of the id as the packet's sender writes it.
#[inline]
pub(crate) fn shard_of_sender_id(sender_id: u64, shards: u8) -> u8 {
    let shards = u32::from(shards.max(1));
    let owner = if sender_id & 1 == 0 {
        let block = (sender_id as u16) >> (BLOCK_BITS + 1);
        ((sender_id >> 32) as u32).wrapping_add(u32::from(block)) % shards
    } else {
        u32::from((sender_id >> 24) as u8) % shards
    };
    owner as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::Ids;

    #[test]
    fn client_packets_go_to_the_shard_that_made_the_id() {
        for shard in 0..4 {
            let mut ids = Ids::new(77, shard);
            assert!((0..1000).all(|_| shard_of_sender_id(ids.make() | 1, 4) == shard));
        }
    }

    #[test]
    fn server_packets_spread_in_blocks() {
        for shards in 1..=8u8 {
            let mut ids = Ids::new(0xdead_beef, 0);
            let mut counts = vec![0; usize::from(shards)];
            let owners: Vec<u8> = (0..64_000).map(|_| shard_of_sender_id(ids.make(), shards)).collect();
            let changes = owners.windows(2).filter(|pair| pair[0] != pair[1]).count();
            assert!(changes <= 1000, "{changes} changes in 1000 blocks");
            owners.iter().for_each(|&owner| counts[usize::from(owner)] += 1);
            let even = 64_000 / usize::from(shards);
            assert!(counts.iter().all(|&count| count >= even * 9 / 10), "{counts:?}");
        }
    }

    #[test]
    fn any_bytes_have_an_owner() {
        assert_eq!(shard_of_packet(&[], 3), 0);
        assert_eq!(shard_of_packet(&[0xff; 27], 3), 0);
        assert!(shard_of_packet(&[0xff; 28], 3) < 3);
        assert_eq!(shard_of_packet(&[0xff; 28], 0), 0);
    }
}
