//! Which partition a task's events go to: the one that the Java and Python clients would choose for
//! the same key, so that other producers' records of the task land beside ours.

use uuid::Uuid;

/// The partition of a task, from 0 to `partitions` - 1.
///
/// Kafka's default for keyed records: the positive part of the key's murmur2 hash, modulo the number
/// of partitions (`BuiltInPartitioner.partitionForKey` in Kafka's Java client).
pub fn of_task(task_id: Uuid, partitions: u32) -> u32 {
    let mut key = Uuid::encode_buffer();
    let key = task_id.as_hyphenated().encode_lower(&mut key);
    (murmur2(key.as_bytes()) & 0x7fff_ffff) % partitions
}

/// MurmurHash2, 32 bits, with the seed that Kafka uses (`Utils.murmur2`).
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    // Keys are shorter than 4 GiB, so the length loses nothing.
    let mut hash = SEED ^ (data.len() as u32);
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        k = k.wrapping_mul(M);
        k ^= k >> R;
        k = k.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the tests of Kafka's own `Utils.murmur2`.
    #[test]
    fn hashes_are_those_of_the_java_client() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn every_task_has_a_partition_and_every_partition_tasks() {
        let mut counts = [0; 3];
        for id in 0..3_000 {
            counts[of_task(Uuid::from_u128(id << 64), 3) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }
}
