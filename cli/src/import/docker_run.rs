//! Reads the arguments of `docker run` and `podman run`.

/// A container as its command line describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) image: String,
    pub(super) command: Vec<String>,
    pub(super) args: Vec<String>,
    /// Without a value: taken from the client's `env`, or else the environment.
    pub(super) env: Vec<(String, Option<String>)>,
}

/// Options that say nothing of the server: `up` sets its own.
const IGNORED: [&str; 9] =
    ["-i", "--interactive", "-t", "--tty", "-it", "-ti", "--rm", "--init", "--sig-proxy"];
/// As [`IGNORED`], with a value.
const IGNORED_WITH_VALUE: [&str; 5] = ["--name", "--pull", "--label", "-l", "--platform"];

/// Reads what follows `run`.
pub(super) fn read(words: &[&str]) -> Result<Container, String> {
    let mut container = Container::default();
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        if !word.starts_with('-') {
            word.clone_into(&mut container.image);
            container.args = words.map(str::to_owned).collect();
            return Ok(container);
        }
        let (flag, inline) = match (word.strip_prefix("-e"), word.split_once('=')) {
            // `-eNAME=VALUE`, and `-e=NAME` as well.
            (Some(joined), _) if !joined.is_empty() => ("-e", Some(joined.trim_start_matches('='))),
            (_, Some((flag, value))) => (flag, Some(value)),
            (_, None) => (word, None),
        };
        if IGNORED.contains(&flag) {
            continue;
        }
        let mut value = || inline.or_else(|| words.next()).ok_or_else(|| format!("{flag} has no value"));
        match flag {
            "-e" | "--env" => {
                let value = value()?;
                let (name, value) =
                    value.split_once('=').map_or((value, None), |(name, value)| (name, Some(value)));
                container.env.push((name.to_owned(), value.map(str::to_owned)));
            }
            "--entrypoint" => container.command = vec![value()?.to_owned()],
            _ if IGNORED_WITH_VALUE.contains(&flag) => drop(value()?),
            _ => return Err(format!("the option {flag} of a container has no equivalent in an McpServer")),
        }
    }
    Err("the container has no image".to_owned())
}
