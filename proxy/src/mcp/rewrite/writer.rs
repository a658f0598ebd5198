//! Where rewritten bytes go: runs of the chunk that stay as they are, and new bytes between them.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// Takes runs of the chunk and new bytes, in order.
pub(super) trait Sink {
    fn verbatim(&mut self, run: &[u8]);
    fn insert(&mut self, bytes: &[u8]);
}

impl Sink for BytesMut {
    fn verbatim(&mut self, run: &[u8]) {
        self.extend_from_slice(run);
    }
    fn insert(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Runs from this length on are passed on as slices; below, a copy costs less than one more frame.
const SLICE_FROM: usize = 4096;
/// Room for what is inserted.
const ADDED: usize = 128;

/// Collects slices of a chunk and small copies between them.
pub(super) struct Pieces<'a> {
    chunk: &'a Bytes,
    out: &'a mut Vec<Bytes>,
    small: BytesMut,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(chunk: &'a Bytes, out: &'a mut Vec<Bytes>) -> Self {
        Self { chunk, out, small: BytesMut::new() }
    }

    pub(super) fn finish(mut self) {
        self.flush();
    }

    fn flush(&mut self) {
        if !self.small.is_empty() {
            self.out.push(self.small.split().freeze());
        }
    }

    fn copy(&mut self, bytes: &[u8]) {
        if self.small.capacity() == 0 {
            // Of most chunks everything is copied, and little comes in addition.
            self.small.reserve(self.chunk.len().min(SLICE_FROM) + ADDED);
        }
        self.small.extend_from_slice(bytes);
    }
}

impl Sink for Pieces<'_> {
    fn verbatim(&mut self, run: &[u8]) {
        if run.len() < SLICE_FROM {
            self.copy(run);
        } else {
            self.flush();
            self.out.push(self.chunk.slice_ref(run));
        }
    }
    fn insert(&mut self, bytes: &[u8]) {
        self.copy(bytes);
    }
}

/// Joins neighbouring runs before they reach the sink.
pub(super) struct Writer<'a, S> {
    chunk: &'a [u8],
    run: Range<usize>,
    sink: &'a mut S,
}

impl<'a, S: Sink> Writer<'a, S> {
    pub(super) fn new(chunk: &'a [u8], sink: &'a mut S) -> Self {
        Self { chunk, run: 0..0, sink }
    }

    pub(super) fn bytes(&self, from: usize, to: usize) -> &'a [u8] {
        self.chunk.get(from..to).unwrap_or_default()
    }

    pub(super) fn keep(&mut self, from: usize, to: usize) {
        if self.run.end == from {
            self.run.end = to;
        } else {
            self.flush();
            self.run = from..to;
        }
    }

    pub(super) fn insert(&mut self, bytes: &[u8]) {
        self.flush();
        self.sink.insert(bytes);
    }

    pub(super) fn flush(&mut self) {
        let run = std::mem::replace(&mut self.run, 0..0);
        if !run.is_empty() {
            self.sink.verbatim(self.bytes(run.start, run.end));
        }
    }
}
