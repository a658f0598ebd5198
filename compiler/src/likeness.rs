//! The word that was meant, where one is given that is not known.

/// The help that names the word that was meant.
pub(crate) fn suggestion<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    likeliest(word, candidates).map(|meant| format!("did you mean `{meant}`?"))
}

/// The likeliest of the words that could have been meant.
pub(crate) fn likeliest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance =
        |candidate: &str| strsim::damerau_levenshtein(&candidate.to_lowercase(), &word.to_lowercase());
    let best = candidates.into_iter().map(|candidate| (distance(candidate), candidate)).min()?;
    (best.0 <= 1 + word.chars().count() / 4).then_some(best.1)
}
