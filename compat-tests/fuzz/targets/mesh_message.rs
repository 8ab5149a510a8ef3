//! User messages from one group to another: chunks of a client, whatever they are, and messages of known
//! contents in pieces of any length.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sigver::protocol::mesh::{ChunkWriter, MAX_OPEN_MESSAGES, MeshGroup, MessageChunk};
use sigver_fuzz::input::Input;

/// Longest message, in bytes: some chunks of any group.
const MAX_MESSAGE: u32 = 70_000;

fn group(input: &mut Input<'_>) -> MeshGroup {
    MeshGroup::ALL[input.below(MeshGroup::ALL.len())]
}

/// A receiver, which takes chunks as a client of its group does.
struct Receiver {
    group: MeshGroup,
    messages: Vec<(u32, MessageChunk, Vec<u8>)>,
    complete: Vec<(bool, Vec<u8>)>,
}

impl Receiver {
    fn take(&mut self, written: &Bytes) {
        let chunk = MessageChunk::decode(self.group, written, true).expect("a chunk of this group");
        let at = self.messages.iter().position(|(number, ..)| *number == chunk.message);
        let (_, first, mut data) = match at {
            Some(at) if chunk.offset > 0 => self.messages.swap_remove(at),
            at => {
                // A message that was begun is replaced by another with its number.
                if let Some(at) = at {
                    self.messages.swap_remove(at);
                }
                assert_eq!(chunk.offset, 0, "a message begins with its first chunk");
                (chunk.message, chunk.clone(), Vec::new())
            }
        };
        assert_eq!((chunk.is_text, chunk.total), (first.is_text, first.total));
        assert_eq!(chunk.offset as usize, data.len());
        data.extend_from_slice(&chunk.data);
        if data.len() == chunk.total as usize {
            self.complete.push((chunk.is_text, data));
        } else {
            self.messages.push((chunk.message, first, data));
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let (from, to) = (group(&mut input), group(&mut input));
    let mut writer = ChunkWriter::new(to, MAX_MESSAGE, input.u16());
    let mut receiver = Receiver { group: to, messages: Vec::new(), complete: Vec::new() };
    while !input.is_empty() {
        let mut written = Vec::new();
        let kind = input.byte();
        if kind & 1 == 0 {
            // A frame of a client.
            let frame = Bytes::copy_from_slice(input.bytes());
            let Some(chunk) = MessageChunk::decode(from, &frame, kind & 2 != 0) else { continue };
            assert!(chunk.data.len() <= frame.len());
            let _ = writer.push(&chunk, &mut written);
        } else {
            // A whole message, in pieces.
            let (total, piece) = (input.u16(), input.u16().max(64));
            let data: Vec<u8> = (0..total).map(|at| (at % 251) as u8).collect();
            let message = u32::MAX - u32::from(kind);
            let count = receiver.complete.len();
            let mut offset = 0;
            let mut is_carried = true;
            for part in data.chunks(piece.into()).chain(data.is_empty().then_some(&[][..])) {
                let chunk = MessageChunk {
                    message,
                    is_text: kind & 2 != 0,
                    is_broadcast: true,
                    total: total.into(),
                    offset,
                    data: Bytes::copy_from_slice(part),
                };
                offset += part.len() as u32;
                is_carried &= writer.push(&chunk, &mut written).is_ok();
            }
            for part in written.drain(..) {
                receiver.take(&part);
            }
            if is_carried {
                assert_eq!(receiver.complete[count..], [(kind & 2 != 0, data)]);
            }
        }
        for part in &written {
            receiver.take(part);
        }
        assert!(writer.buffered() < MAX_OPEN_MESSAGES * to.facts().chunk_length as usize);
    }
});
