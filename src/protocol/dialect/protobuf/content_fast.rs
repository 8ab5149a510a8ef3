//! Contents with data, which is nearly all that is relayed: taken out of a frame, and put into one, without a copy of the
//! data. Anything else, and whatever is unusual, is left to the compiled messages of [`wire`](super::wire), which are the
//! oracle here: a relayed message takes a quarter fewer instructions than with them.

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::encoding::{encode_varint, encoded_len_varint};

use super::wire::ContentLayout;
use crate::protocol::frame::{FramePrefix, Outgoing};

/// The longest number read here, in bytes; longer ones have bits to spare.
const MAX_VARINT: usize = 5;

/// The longest head: three tags with a number behind each, and one with a length, which is below 2³⁵.
const MAX_HEAD: usize = 24;

impl ContentLayout {
    /// The field of a message that is its content.
    fn outer(self) -> u8 {
        match self {
            ContentLayout::V15_1 | ContentLayout::V15_0 => 1,
            ContentLayout::V19 | ContentLayout::V20 => 2,
        }
    }

    /// The field of a content that is its data: the last of those that are sent together.
    fn data(self) -> u8 {
        match self {
            ContentLayout::V15_1 => 2,
            ContentLayout::V15_0 | ContentLayout::V19 => 3,
            ContentLayout::V20 => 4,
        }
    }
}

/// The data of a content and the numbers before it, by their fields, if the frame is nothing else: each field once at most,
/// in order, and the data at the end. Otherwise, the frame.
pub(super) fn take_out(mut frame: Bytes, layout: ContentLayout) -> Result<([u32; 4], Bytes), Bytes> {
    match find(&frame, layout) {
        Some((numbers, length)) => {
            // The same memory, with nobody else to share it: a clone and what it allocates less.
            frame.advance(frame.len() - length);
            Ok((numbers, frame))
        }
        None => Err(frame),
    }
}

/// The numbers, and the length of the data at the end.
fn find(frame: &[u8], layout: ContentLayout) -> Option<([u32; 4], usize)> {
    let (&tag, rest) = frame.split_first()?;
    let (length, mut rest) = varint(rest)?;
    if tag != delimited(layout.outer()) || length as usize != rest.len() {
        return None;
    }
    let (mut numbers, mut before) = ([0; 4], 0);
    loop {
        let (&tag, after) = rest.split_first()?;
        let (number, after) = varint(after)?;
        if tag == delimited(layout.data()) {
            let is_last = number as usize == after.len();
            return is_last.then_some((numbers, after.len()));
        }
        let field = tag >> 3;
        if tag & 7 != 0 || field <= before || field >= layout.data() {
            return None;
        }
        numbers[usize::from(field)] = number;
        (before, rest) = (field, after);
    }
}

/// A frame with a content: these numbers in its first fields, and the data.
pub(super) fn put_in(layout: ContentLayout, numbers: &[u32], data: Bytes) -> Outgoing {
    let field = |length| 1 + encoded_len_varint(length);
    let before: usize = numbers.iter().map(|number| field(u64::from(*number))).sum();
    let length = data.len() as u64;
    let mut head = [0; MAX_HEAD];
    let mut rest = &mut head[..];
    rest.put_u8(delimited(layout.outer()));
    encode_varint((before + field(length)) as u64 + length, &mut rest);
    for (field, number) in (1..).zip(numbers) {
        rest.put_u8(field << 3);
        encode_varint(u64::from(*number), &mut rest);
    }
    rest.put_u8(delimited(layout.data()));
    encode_varint(length, &mut rest);
    let unused = rest.len();
    Outgoing::Prefixed(FramePrefix::from_slice(&head[..MAX_HEAD - unused]), data)
}

/// The tag of a field that has a length.
fn delimited(field: u8) -> u8 {
    field << 3 | 2
}

fn varint(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().enumerate().take(MAX_VARINT) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((u32::try_from(value).ok()?, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::dialect::protobuf::wire::{v15, v18, v19, v20};
    use proptest::prelude::*;
    use proptest::strategy::ValueTree as _;
    use prost::Message as _;

    const LAYOUTS: [ContentLayout; 4] =
        [ContentLayout::V15_1, ContentLayout::V15_0, ContentLayout::V19, ContentLayout::V20];

    /// What the compiled messages make of a frame, if it is a content with data.
    fn compiled(frame: &Bytes, layout: ContentLayout) -> Option<([u32; 4], Bytes)> {
        let (bit, frame) = (|bit: Option<bool>| u32::from(bit.unwrap_or_default()), frame.clone());
        match layout {
            ContentLayout::V15_1 => match v18::Message::decode(frame).ok()?.r#type? {
                v18::message::Type::Content(content) => match content.r#type? {
                    v18::content::Type::Data(data) => Some(([0, content.id.unwrap_or(0), 0, 0], data)),
                    _ => None,
                },
                _ => None,
            },
            ContentLayout::V15_0 => match v15::Message::decode(frame).ok()?.r#type? {
                v15::message::Type::Content(content) => {
                    Some(([0, content.id.unwrap_or(0), bit(content.is_end), 0], content.data?))
                }
                _ => None,
            },
            ContentLayout::V19 => match v19::Message::decode(frame).ok()?.r#type? {
                v19::message::Type::Content(content) => {
                    Some(([0, content.id.unwrap_or(0), bit(content.last_data), 0], content.data?))
                }
                _ => None,
            },
            ContentLayout::V20 => match v20::Message::decode(frame).ok()?.r#type? {
                v20::message::Type::Content(content) => {
                    let (sender, recipient) = (content.sender_id, content.recipient_id);
                    let numbers = [0, sender.unwrap_or(0), recipient.unwrap_or(0), bit(content.last_data)];
                    Some((numbers, content.data?))
                }
                _ => None,
            },
        }
    }

    /// The bits among the numbers count as true whatever they are.
    fn with_bits(layout: ContentLayout, (mut numbers, data): ([u32; 4], Bytes)) -> ([u32; 4], Bytes) {
        let bit = match layout {
            ContentLayout::V15_1 => None,
            ContentLayout::V15_0 | ContentLayout::V19 => Some(2),
            ContentLayout::V20 => Some(3),
        };
        bit.into_iter().for_each(|bit: usize| numbers[bit] = numbers[bit].min(1));
        (numbers, data)
    }

    fn whole(frame: Outgoing) -> Bytes {
        let Outgoing::Prefixed(head, data) = frame else { panic!("{frame:?}") };
        [&head[..], &data].concat().into()
    }

    /// Fields as they may come, in any order, more than once, and of no known number.
    fn fields() -> impl Strategy<Value = Vec<u8>> {
        let number = (1u32..7, any::<u64>(), any::<bool>()).prop_map(|(field, value, small)| {
            let mut out = Vec::new();
            prost::encoding::uint64::encode(field, &(if small { value % 200 } else { value }), &mut out);
            out
        });
        let data = (1u32..7, prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(field, data)| {
            let mut out = Vec::new();
            prost::encoding::bytes::encode(field, &data, &mut out);
            out
        });
        prop::collection::vec(prop_oneof![number, data], 0..5).prop_map(|fields| fields.concat())
    }

    /// A number as it is sent, or longer than it need be.
    fn number(field: u8, value: u64, padded: bool) -> Vec<u8> {
        let mut out = vec![field << 3];
        encode_varint(value, &mut out);
        if padded && out.len() < 10 {
            *out.last_mut().unwrap() |= 0x80;
            out.push(0);
        }
        out
    }

    /// A frame of this layout, as contents with data are: some numbers in order, and the data behind them.
    fn shaped(layout: ContentLayout, numbers: &[Option<(u64, bool)>], data: &[u8]) -> Vec<u8> {
        let mut inner = Vec::new();
        for (field, it) in (1..layout.data()).zip(numbers) {
            inner.extend(it.iter().flat_map(|(value, padded)| number(field, *value, *padded)));
        }
        prost::encoding::bytes::encode(layout.data().into(), &data.to_vec(), &mut inner);
        let mut frame = Vec::new();
        prost::encoding::bytes::encode(layout.outer().into(), &inner, &mut frame);
        frame
    }

    fn numbers() -> impl Strategy<Value = Vec<Option<(u64, bool)>>> {
        let value = prop::sample::select(vec![0, 1, 127, 128, u64::from(u32::MAX), 1 << 32, u64::MAX]);
        prop::collection::vec(prop::option::of((value, prop::bool::weighted(0.1))), 3)
    }

    /// Whether it was taken out, which must be right if it was.
    fn compare(frame: Vec<u8>, layout: ContentLayout) -> bool {
        let frame = Bytes::from(frame);
        let Ok(taken) = take_out(frame.clone(), layout) else { return false };
        assert_eq!(Some(with_bits(layout, taken)), compiled(&frame, layout), "{layout:?}: {frame:?}");
        true
    }

    #[test]
    fn what_has_the_shape_is_taken_out_and_is_right() {
        let strategy = (
            prop::sample::select(LAYOUTS.to_vec()),
            numbers(),
            prop::collection::vec(any::<u8>(), 0..200),
            prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>())),
            prop::option::weighted(0.1, 0u8..7),
        );
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let (cases, mut taken) = (4000, 0);
        for _ in 0..cases {
            let (layout, numbers, data, broken, more) = strategy.new_tree(&mut runner).unwrap().current();
            let mut frame = shaped(layout, &numbers, &data);
            if let Some(field) = more {
                frame.extend(number(field, 1, false));
            }
            if let Some((at, byte)) = broken {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
            taken += usize::from(compare(frame, layout));
        }
        assert!(taken > cases / 10, "{taken} of {cases} were taken out: nothing is tried");
    }

    #[test]
    fn a_bit_that_is_longer_than_a_number_is_left_to_the_compiled_messages() {
        for (layout, bit) in [(ContentLayout::V15_0, 1), (ContentLayout::V19, 1), (ContentLayout::V20, 2)] {
            for value in [1 << 32, u64::MAX] {
                let mut numbers = [Some((1, false)); 3];
                numbers[bit] = Some((value, false));
                assert!(!compare(shaped(layout, &numbers[..=bit], b"data"), layout));
            }
            assert!(compare(shaped(layout, &[Some((1, false)); 3][..=bit], b"data"), layout));
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_out_is_what_the_compiled_messages_take_out(
            outer in 1u32..3, inner in fields(), broken in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut frame = Vec::new();
            prost::encoding::bytes::encode(outer, &inner, &mut frame);
            if let Some((at, byte)) = broken {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
            let frame = Bytes::from(frame);
            for layout in LAYOUTS {
                if let Ok(taken) = take_out(frame.clone(), layout) {
                    prop_assert_eq!(Some(with_bits(layout, taken)), compiled(&frame, layout));
                }
            }
        }

        #[test]
        fn what_is_put_in_can_be_taken_out(
            id in any::<u32>(), other in any::<u32>(), data in prop::collection::vec(any::<u8>(), 0..20_000),
        ) {
            let data = Bytes::from(data);
            for layout in LAYOUTS {
                let numbers: &[u32] = if layout == ContentLayout::V20 { &[id, other] } else { &[id] };
                let frame = whole(put_in(layout, numbers, data.clone()));
                let expected = [0, id, if layout == ContentLayout::V20 { other } else { 0 }, 0];
                prop_assert_eq!(take_out(frame.clone(), layout), Ok((expected, data.clone())));
                prop_assert_eq!(compiled(&frame, layout), Some((expected, data.clone())));
                // Without a byte that the compiled messages would not write.
                let mut again = Vec::new();
                match layout {
                    ContentLayout::V15_1 => v18::Message::decode(frame.clone()).unwrap().encode(&mut again).unwrap(),
                    ContentLayout::V15_0 => v15::Message::decode(frame.clone()).unwrap().encode(&mut again).unwrap(),
                    ContentLayout::V19 => v19::Message::decode(frame.clone()).unwrap().encode(&mut again).unwrap(),
                    ContentLayout::V20 => v20::Message::decode(frame.clone()).unwrap().encode(&mut again).unwrap(),
                }
                prop_assert!(again == frame);
            }
        }
    }
}
