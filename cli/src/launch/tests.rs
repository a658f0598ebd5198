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

fn environment(variables: &[(&str, &str)]) -> Environment {
    Environment(variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// What can name something of the engine's own, each with a secret value.
const STEERING: [&str; 8] = [
    "DOCKER_PASSWORD",
    "CONTAINER_HOST",
    "LD_PRELOAD",
    "XDG_RUNTIME_DIR",
    "HTTPS_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "MCPMESH_LOG",
];

#[test]
fn a_containers_secrets_are_not_on_its_command_line() {
    let mut all = vec![("TOKEN", "canary")];
    all.extend(STEERING.map(|name| (name, "canary")));
    let variables = Variables::of(environment(&all)).unwrap();
    let published = Published::new(3000, "/mcp").unwrap();
    let run = Run {
        name: "mcpmesh-x",
        image: "acme/mcp:1",
        command: &["/bin/serve".to_owned(), "--http".to_owned()],
        args: &["-v".to_owned()],
        port: Some(&published),
    };
    let argv = run.argv(Path::new("docker"), &variables.by_name);
    let line = words(&argv).join(" ");
    assert!(!line.contains("canary"), "{line}");
    assert!(line.contains("--label app.kubernetes.io/managed-by=mcpmesh --publish"), "{line}");
    assert!(line.contains(" --env TOKEN --entrypoint"), "{line}");
    assert!(line.contains(&format!("--publish 127.0.0.1:{}:3000", published.outside)), "{line}");
    assert!(line.ends_with("--entrypoint /bin/serve acme/mcp:1 --http -v"), "{line}");
}

#[test]
fn what_would_steer_the_engine_is_not_in_its_environment() {
    let all: Vec<_> =
        STEERING.iter().map(|name| (*name, "x=y #z")).chain([("TOKEN", "two\nlines")]).collect();
    let variables = Variables::of(environment(&all)).unwrap();
    assert_eq!(variables.by_name, [("TOKEN".to_owned(), "two\nlines".to_owned())]);
    assert_eq!(variables.by_file, STEERING.map(|name| format!("{name}=x=y #z\n")).concat());
    let Environment(process) = variables.of_process();
    let names: Vec<_> = process.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["TOKEN", engine::VARIABLES]);
}

#[test]
fn a_line_break_that_no_file_of_variables_can_hold_is_refused_with_the_name() {
    for value in ["two\nlines", "return\r"] {
        let error = Variables::of(environment(&[("DOCKER_KEY", value)])).unwrap_err();
        assert_eq!(error, Error::LineBreak("DOCKER_KEY".to_owned()));
        assert!(!error.to_string().contains("lines"), "{error}");
    }
}
