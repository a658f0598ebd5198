//! What every command prints and how it exits, as written down in `tests/cmd`.

#[test]
fn commands_say_what_they_are_written_down_to_say() {
    trycmd::TestCases::new().env("HOME", "/home/ann").env("NO_COLOR", "1").case("tests/cmd/*.md");
}
