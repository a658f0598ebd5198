//! The proxy's `mcp` modules (links to `proxy/src`), built alone for fuzzing, and what the targets
//! share.

pub mod mcp;

/// Cuts an input at places that its own first bytes pick: `(head, rest, cuts in rest)`.
pub fn cuts(data: &[u8]) -> Option<(u8, &[u8], Vec<usize>)> {
    let (&[head, one, two, three], rest) = data.split_first_chunk::<4>()?;
    let mut cuts: Vec<_> =
        [one, two, three].iter().map(|cut| usize::from(*cut) * 3 % (rest.len() + 1)).collect();
    cuts.extend([0, rest.len()]);
    cuts.sort_unstable();
    Some((head, rest, cuts))
}
