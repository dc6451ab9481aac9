//! Where random bytes come from: the core has no source of its own.

/// A source of random bytes, passed in by whoever drives the protocol.
///
/// It pads frames, names channels and makes nonces, so it must be of cryptographic quality outside tests.
pub trait Random {
    /// Fills `out` wholly.
    fn fill(&mut self, out: &mut [u8]);

    /// An array of random bytes.
    fn array<const N: usize>(&mut self) -> [u8; N]
    where
        Self: Sized,
    {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }
}

impl<R: Random + ?Sized> Random for &mut R {
    fn fill(&mut self, out: &mut [u8]) {
        (**self).fill(out);
    }
}
