use super::*;

fn words(argv: &[OsString]) -> Vec<&str> {
    argv.iter().map(|word| word.to_str().unwrap()).collect()
}

fn only(program: &'static str) -> impl Fn(&str) -> Option<PathBuf> {
    move |name| (name == program).then(|| PathBuf::from(program))
}

#[test]
fn npx_asks_nothing_and_takes_the_pinned_version() {
    let argv = npx(PathBuf::from("npx"), "@acme/mcp", Some("1.2.3"), &["--stdio".to_owned()]);
    assert_eq!(words(&argv), ["npx", "-y", "@acme/mcp@1.2.3", "--stdio"]);
    assert_eq!(words(&npx(PathBuf::from("npx"), "mcp", None, &[])), ["npx", "-y", "mcp"]);
}

#[test]
fn a_pypi_package_runs_with_whatever_of_uvx_uv_and_pipx_is_there() {
    let run = |program: &'static str| uvx(&only(program), "mcp-server[cli]", Some("1.0"), &[]);
    for (program, line) in [
        ("uvx", "uvx --from mcp-server[cli]==1.0 mcp-server"),
        ("uv", "uv tool run --from mcp-server[cli]==1.0 mcp-server"),
        ("pipx", "pipx run --spec mcp-server[cli]==1.0 mcp-server"),
    ] {
        assert_eq!(words(&run(program).unwrap()).join(" "), line);
    }
    assert_eq!(run("npx"), None);
}

#[test]
fn a_containers_secrets_are_not_on_its_command_line() {
    let environment = Environment(vec![
        ("TOKEN".to_owned(), "canary".to_owned()),
        ("DOCKER_HOST".to_owned(), "inside".to_owned()),
    ]);
    let published = Published::new(3000, "/mcp").unwrap();
    let run = Run {
        name: "mcpmesh-x",
        image: "acme/mcp:1",
        command: &["/bin/serve".to_owned(), "--http".to_owned()],
        args: &["-v".to_owned()],
        port: Some(&published),
    };
    let argv = run.argv(PathBuf::from("docker"), &environment);
    let line = words(&argv).join(" ");
    assert!(!line.contains("canary"), "{line}");
    assert!(line.contains("--env TOKEN --env DOCKER_HOST=inside"), "{line}");
    assert!(line.contains(&format!("--publish 127.0.0.1:{}:3000", published.outside)), "{line}");
    assert!(line.ends_with("--entrypoint /bin/serve acme/mcp:1 --http -v"), "{line}");
}
