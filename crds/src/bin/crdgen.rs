//! Writes the CustomResourceDefinitions.
fn main() {}
