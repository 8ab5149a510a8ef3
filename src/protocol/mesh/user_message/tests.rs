//! Chunks in, chunks out: the bytes and their meaning stay.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::protocol::mesh::group::MeshGroup;

fn decode(group: MeshGroup, written: &Bytes, is_broadcast: bool) -> Option<MessageChunk> {
    MessageChunk::decode(group, written, is_broadcast)
}

fn chunks(data: &[u8], length: usize, is_text: bool, is_broadcast: bool, message: u32) -> Vec<MessageChunk> {
    let total = data.len() as u32;
    let chunk = |offset: usize, data: &[u8]| MessageChunk {
        message,
        is_text,
        is_broadcast,
        total,
        offset: offset as u32,
        data: Bytes::copy_from_slice(data),
    };
    if data.is_empty() {
        return vec![chunk(0, data)];
    }
    data.chunks(length).enumerate().map(|(number, part)| chunk(number * length, part)).collect()
}

/// Joins chunks of messages that are not interleaved.
fn join(chunks: &[MessageChunk]) -> Vec<(bool, bool, Vec<u8>)> {
    let mut messages = Vec::new();
    let mut data = Vec::new();
    for chunk in chunks {
        assert_eq!(chunk.offset as usize, data.len(), "chunks follow each other");
        data.extend_from_slice(&chunk.data);
        if data.len() == chunk.total as usize {
            messages.push((chunk.is_text, chunk.is_broadcast, std::mem::take(&mut data)));
        }
    }
    assert!(data.is_empty(), "the last message is complete");
    messages
}

fn any_group() -> impl Strategy<Value = MeshGroup> {
    select(MeshGroup::ALL.to_vec())
}

proptest! {
    #[test]
    fn any_chunks_in_give_the_same_messages_out(
        group in any_group(),
        messages in prop::collection::vec((0usize..70_000, any::<bool>(), any::<bool>(), 1usize..40_000), 1..5),
    ) {
        let mut writer = ChunkWriter::new(group, 1 << 20, 0);
        let (mut out, mut expected) = (Vec::new(), Vec::new());
        for (number, (length, is_text, is_broadcast, chunk)) in messages.into_iter().enumerate() {
            let data: Vec<u8> = (0..length).map(|at| (at * 31 + number) as u8).collect();
            let mut written = Vec::new();
            for chunk in chunks(&data, chunk, is_text, is_broadcast, number as u32) {
                writer.push(&chunk, &mut written).unwrap();
                prop_assert!(writer.buffered() < group.facts().chunk_length as usize);
            }
            out.extend(written.iter().map(|chunk| decode(group, chunk, is_broadcast).unwrap()));
            expected.push((is_text, is_broadcast, data));
        }
        prop_assert!(out.iter().all(|chunk| chunk.data.len() <= group.facts().chunk_length as usize));
        prop_assert_eq!(join(&out), expected);
        prop_assert_eq!(writer.buffered(), 0);
    }

    #[test]
    fn interleaved_messages_stay_apart(
        group in any_group(),
        order in prop::collection::vec(0usize..3, 40),
    ) {
        let messages: Vec<Vec<u8>> = (0..3u8).map(|k| vec![k; 50_000 + usize::from(k)]).collect();
        let mut left: Vec<Vec<MessageChunk>> =
            (0..3).map(|k| chunks(&messages[k], 9_000, false, true, k as u32)).collect();
        let mut writer = ChunkWriter::new(group, 1 << 20, 0);
        let mut out = Vec::new();
        for k in order.into_iter().chain((0..3).cycle().take(30)) {
            if !left[k].is_empty() {
                writer.push(&left[k].remove(0), &mut out).unwrap();
            }
        }
        let mut read: Vec<MessageChunk> =
            out.iter().map(|chunk| decode(group, chunk, true).unwrap()).collect();
        read.sort_by_key(|chunk| (chunk.message, chunk.offset));
        let mut joined: Vec<Vec<u8>> = join(&read).into_iter().map(|(_, _, data)| data).collect();
        joined.sort();
        prop_assert_eq!(joined, messages);
    }

    #[test]
    fn decoding_is_total(group in any_group(), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Some(chunk) = decode(group, &Bytes::from(bytes), false) {
            prop_assert!(chunk.data.len() <= group.facts().chunk_length as usize);
            let end = u64::from(chunk.offset) + chunk.data.len() as u64;
            prop_assert!(end <= u64::from(chunk.total));
        }
    }
}

#[test]
fn too_long_message_is_dropped_whole_and_the_next_passes() {
    for &group in MeshGroup::ALL {
        let mut writer = ChunkWriter::new(group, 20_000, 0);
        let mut out = Vec::new();
        let long = chunks(&[7; 20_001], 15_000, false, true, 1);
        assert_eq!(writer.push(&long[0], &mut out), Err(ChunkError::TooLong));
        assert_eq!(writer.push(&long[1], &mut out), Err(ChunkError::Dropped));
        for chunk in chunks(&[8; 20_000], 15_000, false, true, 2) {
            writer.push(&chunk, &mut out).unwrap();
        }
        let read: Vec<_> = out.iter().map(|chunk| decode(group, chunk, true).unwrap()).collect();
        assert_eq!(join(&read), [(false, true, vec![8; 20_000])], "{group:?}");
    }
}

#[test]
fn gap_in_a_message_drops_the_rest_of_it() {
    let mut writer = ChunkWriter::new(MeshGroup::Netflux4, 1 << 20, 0);
    let mut out = Vec::new();
    let parts = chunks(&[7; 50_000], 15_000, true, true, 1);
    writer.push(&parts[0], &mut out).unwrap();
    assert_eq!(writer.push(&parts[2], &mut out), Err(ChunkError::OutOfOrder));
    assert_eq!(writer.push(&parts[3], &mut out), Err(ChunkError::Dropped));
    assert_eq!((out.len(), writer.buffered()), (1, 0));
}

#[test]
fn unfinished_messages_have_a_bound() {
    let mut writer = ChunkWriter::new(MeshGroup::Netflux1, 1 << 20, 0);
    let mut out = Vec::new();
    for message in 0..MAX_OPEN_MESSAGES as u32 {
        writer.push(&chunks(&[7; 50_000], 10_000, true, true, message)[0], &mut out).unwrap();
    }
    let more = &chunks(&[7; 50_000], 10_000, true, true, 99)[0];
    assert_eq!(writer.push(more, &mut out), Err(ChunkError::TooManyOpen));
}

/// Hand-written from the layouts: length, type, broadcast, message, chunk, data.
#[test]
fn binary_header_is_read() {
    let written = Bytes::from_static(b"\0\0\0\x02\x03\x01\0\0\0\0m0");
    let chunk = decode(MeshGroup::Netflux0, &written, true).unwrap();
    assert!(chunk.is_text && chunk.is_broadcast);
    assert_eq!((chunk.total, chunk.offset, &chunk.data[..]), (2, 0, &b"m0"[..]));
    let mut out = Vec::new();
    ChunkWriter::new(MeshGroup::Netflux1, 9, 0).push(&chunk, &mut out).unwrap();
    assert_eq!(out, [written]);
    // A typed array is bytes: sent on as `Uint8Array`.
    let array =
        decode(MeshGroup::Netflux0, &Bytes::from_static(b"\0\0\0\x02\x0a\0\0\0\0\0ab"), false).unwrap();
    let mut out = Vec::new();
    ChunkWriter::new(MeshGroup::Netflux0, 9, 0).push(&array, &mut out).unwrap();
    assert_eq!(out, [Bytes::from_static(b"\0\0\0\x02\x02\0\0\0\0\0ab")]);
    for bad in [&b"\0\0\0\x02\x03\x01\0\0\0\0m"[..], b"\0\0\0\x02\x03\x01\0\0\0\x01m0", b"\0\0\0\x02"] {
        assert_eq!(decode(MeshGroup::Netflux0, &Bytes::copy_from_slice(bad), true), None, "{bad:?}");
    }
}
