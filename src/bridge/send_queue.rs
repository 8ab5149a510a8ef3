//! Frames that wait for a channel: heartbeats before all others, within a bound.

use std::collections::VecDeque;

use crate::protocol::mesh::ChannelFrame;

/// Bytes that a frame counts apart from its data.
const FRAME_OVERHEAD: usize = 64;

/// Frames that wait for a channel.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    urgent: VecDeque<ChannelFrame>,
    frames: VecDeque<ChannelFrame>,
    bytes: usize,
}

/// Returns the bytes that a frame is counted as.
pub(super) fn cost(frame: &ChannelFrame) -> usize {
    let (ChannelFrame::Text(data) | ChannelFrame::Binary(data)) = frame;
    data.len().saturating_add(FRAME_OVERHEAD)
}

impl SendQueue {
    /// Appends a frame. An urgent one goes before those that are not.
    pub(super) fn push(&mut self, frame: ChannelFrame, is_urgent: bool) {
        self.bytes = self.bytes.saturating_add(cost(&frame));
        if is_urgent { &mut self.urgent } else { &mut self.frames }.push_back(frame);
    }

    /// Returns the next frame.
    pub(super) fn first(&self) -> Option<&ChannelFrame> {
        self.urgent.front().or_else(|| self.frames.front())
    }

    /// Removes the next frame.
    pub(super) fn pop(&mut self) {
        if let Some(frame) = self.urgent.pop_front().or_else(|| self.frames.pop_front()) {
            self.bytes = self.bytes.saturating_sub(cost(&frame));
        }
    }

    /// Returns the number of bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn urgent_frames_are_first_and_bytes_are_counted() {
        let frame = |text: &'static str| ChannelFrame::Text(Bytes::from_static(text.as_bytes()));
        let mut queue = SendQueue::default();
        for (text, is_urgent) in [("a", false), ("b", false), ("beat", true), ("c", false)] {
            queue.push(frame(text), is_urgent);
        }
        assert_eq!(queue.bytes(), 7 + 4 * FRAME_OVERHEAD);
        let mut order = Vec::new();
        while let Some(first) = queue.first().cloned() {
            order.push(first);
            queue.pop();
        }
        assert_eq!(order, ["beat", "a", "b", "c"].map(frame));
        assert_eq!(queue.bytes(), 0);
    }
}
