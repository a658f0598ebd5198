//! What a client's command line means: a package, a container or a remote server behind a bridge.

use super::docker_run::{self, Container};

/// What a server is, as far as its command line tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    Package { registry: &'static str, name: String, version: Option<String>, args: Vec<String> },
    Container(Container),
    Remote { url: String, headers: Vec<(String, String)> },
}

/// Reads a command line. The error says what to do instead.
pub(super) fn read(command: &str, args: &[String]) -> Result<Source, String> {
    let name = command.rsplit(['/', '\\']).next().unwrap_or(command);
    let name = name.trim_end_matches(".cmd").trim_end_matches(".exe");
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match (name, words.as_slice()) {
        // Windows configurations start npx through cmd.
        ("cmd", ["/c" | "/C", inner, ..]) => read(inner, args.get(2..).unwrap_or_default()),
        ("npx" | "bunx", rest) => npm(name, rest),
        ("bun", ["x", rest @ ..]) | ("pnpm" | "yarn", ["dlx", rest @ ..]) | ("npm", ["exec", rest @ ..]) => {
            npm(name, rest)
        }
        ("uvx", rest) | ("uv", ["tool", "run", rest @ ..]) => pypi(name, rest),
        ("pipx", ["run", rest @ ..]) => pypi(name, rest),
        ("docker" | "podman", ["run", rest @ ..] | ["container", "run", rest @ ..]) => {
            docker_run::read(rest).map(Source::Container)
        }
        _ => Err(format!(
            "{command:?} runs a program of this machine, which an McpServer cannot: use its npm or PyPI package, \
             or a container image"
        )),
    }
}

fn npm(runner: &str, words: &[&str]) -> Result<Source, String> {
    let mut words = words.iter().copied();
    let mut package = None;
    let spec = loop {
        let word = words.next().ok_or_else(|| format!("{runner} names no package"))?;
        match word.split_once('=').map_or((word, None), |(flag, value)| (flag, Some(value))) {
            ("-y" | "--yes" | "-q" | "--quiet" | "--silent" | "--prefer-offline" | "--bun" | "--", None) => {}
            ("-p" | "--package", value) => {
                let value = value.or_else(|| words.next());
                package = Some(value.ok_or_else(|| format!("{word} names no package"))?);
            }
            (flag, _) if flag.starts_with('-') => {
                return Err(format!("the option {flag} of {runner} has no equivalent in an McpServer"));
            }
            _ => break word,
        }
    };
    let args: Vec<String> = words.map(str::to_owned).collect();
    let (name, version) = npm_spec(package.unwrap_or(spec));
    if let Some(package) = package
        && name.rsplit('/').next() != Some(spec)
    {
        return Err(format!(
            "{spec:?} is not the main program of the package {package:?}: give a package of its own"
        ));
    }
    if name.contains(':') || name.starts_with('.') || name.starts_with('/') {
        return Err(format!(
            "{name:?} is no package of the npm registry: publish it, or use a container image"
        ));
    }
    if name == "mcp-remote" {
        return bridge(&args);
    }
    Ok(Source::Package { registry: "Npm", name: name.to_owned(), version, args })
}

/// `name@version`; the name itself may start with an at sign.
fn npm_spec(spec: &str) -> (&str, Option<String>) {
    match spec.rfind('@') {
        Some(at) if at > 0 => {
            let (name, version) = spec.split_at(at);
            (name, pinned(version.trim_start_matches('@')))
        }
        _ => (spec, None),
    }
}

fn pinned(version: &str) -> Option<String> {
    (!version.is_empty() && version != "latest").then(|| version.to_owned())
}

/// `mcp-remote` lets a client without HTTP reach a remote server: we reach it ourselves.
fn bridge(args: &[String]) -> Result<Source, String> {
    let url = args.iter().find(|word| word.starts_with("http://") || word.starts_with("https://"));
    let url = url.ok_or("mcp-remote names no URL")?.clone();
    let values = args.iter().zip(args.iter().skip(1)).filter(|(flag, _)| *flag == "--header");
    let headers = values.filter_map(|(_, value)| value.split_once(':'));
    let headers = headers.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect();
    Ok(Source::Remote { url, headers })
}

fn pypi(runner: &str, words: &[&str]) -> Result<Source, String> {
    let mut words = words.iter().copied();
    let mut from = None;
    let program = loop {
        let word = words.next().ok_or_else(|| format!("{runner} names no package"))?;
        match word.split_once('=').filter(|_| word.starts_with("--")) {
            Some(("--from" | "--spec", value)) => from = Some(value),
            Some(("--python", _)) => {}
            None if matches!(word, "--from" | "--spec") => {
                from = Some(words.next().ok_or_else(|| format!("{word} names no package"))?);
            }
            // Which Python runs it is the runner's business.
            None if matches!(word, "--python" | "-p") => drop(words.next()),
            None if matches!(word, "-q" | "--quiet" | "--isolated" | "--") => {}
            _ if word.starts_with('-') => {
                return Err(format!("the option {word} of {runner} has no equivalent in an McpServer"));
            }
            _ => break word,
        }
    };
    let spec = from.unwrap_or(program);
    if spec.contains("://") || spec.contains("git+") || spec.starts_with('.') || spec.starts_with('/') {
        return Err(format!("{spec:?} is no package of PyPI: publish it, or use a container image"));
    }
    if let Some(at) = spec.find(['<', '>', '~', '!']) {
        let name = spec.get(..at).unwrap_or_default().trim_end_matches('=').trim();
        return Err(format!(
            "{spec:?} is a range of versions, which an McpServer does not take: pin one ({name}==VERSION), or leave it out"
        ));
    }
    let (name, version) = match spec.split_once("==").or_else(|| spec.split_once('@')) {
        Some((name, version)) => (name, pinned(version)),
        None => (spec, None),
    };
    if from.is_some() && plain(name) != plain(program) {
        return Err(format!(
            "{program:?} is not the main program of the package {name:?}: use a container image"
        ));
    }
    let args = words.map(str::to_owned).collect();
    Ok(Source::Package { registry: "PyPI", name: name.to_owned(), version, args })
}

/// PyPI takes these as equal (PEP 503); extras do not change the program.
fn plain(name: &str) -> String {
    let name = name.split_once('[').map_or(name, |(name, _)| name);
    name.trim().to_ascii_lowercase().replace(['_', '.'], "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<Source, String> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let (command, args) = words.split_first().unwrap();
        read(command, args)
    }

    fn package(registry: &'static str, name: &str, version: Option<&str>, args: &[&str]) -> Source {
        let args = args.iter().map(|&word| word.to_owned()).collect();
        Source::Package { registry, name: name.to_owned(), version: version.map(str::to_owned), args }
    }

    #[test]
    fn npx_in_all_its_spellings_is_an_npm_package() {
        let scoped = package("Npm", "@acme/mcp", Some("1.2.3"), &["--stdio"]);
        for text in [
            "npx -y @acme/mcp@1.2.3 --stdio",
            "/usr/bin/npx --yes -- @acme/mcp@1.2.3 --stdio",
            "npx -y --package=@acme/mcp@1.2.3 mcp --stdio",
            "npx -p @acme/mcp@1.2.3 mcp --stdio",
            "cmd /c npx -y @acme/mcp@1.2.3 --stdio",
            "bunx @acme/mcp@1.2.3 --stdio",
            "pnpm dlx @acme/mcp@1.2.3 --stdio",
        ] {
            assert_eq!(line(text).as_ref(), Ok(&scoped), "{text}");
        }
        assert_eq!(line("npx mcp@latest"), Ok(package("Npm", "mcp", None, &[])));
    }

    #[test]
    fn uvx_in_all_its_spellings_is_a_pypi_package() {
        let time = package("PyPI", "mcp-server-time", Some("1.0"), &["--local-timezone=UTC"]);
        for text in [
            "uvx mcp-server-time==1.0 --local-timezone=UTC",
            "uvx mcp-server-time@1.0 --local-timezone=UTC",
            "uvx --from mcp-server-time==1.0 mcp_server_time --local-timezone=UTC",
            "uv tool run mcp-server-time==1.0 --local-timezone=UTC",
            "pipx run --spec=mcp-server-time==1.0 mcp-server-time --local-timezone=UTC",
        ] {
            assert_eq!(line(text).as_ref(), Ok(&time), "{text}");
        }
    }

    #[test]
    fn docker_run_in_all_its_spellings_is_a_container() {
        let env = vec![("FOO".to_owned(), Some("bar=1".to_owned())), ("TOKEN".to_owned(), None)];
        let args = vec!["stdio".to_owned()];
        let expected = Container { image: "acme/mcp".to_owned(), args, env, ..Container::default() };
        for text in [
            "docker run -i --rm -e FOO=bar=1 -e TOKEN acme/mcp stdio",
            "docker container run -i -eFOO=bar=1 -eTOKEN acme/mcp stdio",
            "podman run --platform linux/amd64 --env=FOO=bar=1 --env TOKEN acme/mcp stdio",
            "podman run --platform=linux/amd64 -e=FOO=bar=1 -e=TOKEN acme/mcp stdio",
        ] {
            assert_eq!(line(text), Ok(Source::Container(expected.clone())), "{text}");
        }
    }

    #[test]
    fn a_bridge_is_the_remote_server_behind_it() {
        let text = "npx -y mcp-remote https://mcp.example.com/sse --transport sse-only --header X-Team:blue";
        let headers = vec![("X-Team".to_owned(), "blue".to_owned())];
        assert_eq!(line(text), Ok(Source::Remote { url: "https://mcp.example.com/sse".to_owned(), headers }));
    }

    #[test]
    fn what_cannot_be_said_in_yaml_is_refused_with_a_reason() {
        for (text, reason) in [
            ("node server.js", "a program of this machine"),
            ("npx -y", "names no package"),
            ("npx -y ./local", "no package of the npm registry"),
            ("npx -y github:acme/mcp", "no package of the npm registry"),
            ("npx -p acme other", "not the main program"),
            ("npx --call x", "has no equivalent"),
            ("uvx --from git+https://example.com/x x", "no package of PyPI"),
            ("uvx --with y x", "has no equivalent"),
            ("uvx --from mcp-server-time>=2025 mcp-server-time", "a range of versions"),
            ("uvx --from mcp[cli]~=1.2 mcp", "pin one (mcp[cli]==VERSION)"),
            ("uvx mcp!=1", "a range of versions"),
            ("docker run -v /:/host image", "has no equivalent"),
        ] {
            let error = line(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
