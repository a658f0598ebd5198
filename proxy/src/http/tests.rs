use super::*;

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const PUBLIC: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn listener(hostname: Option<&str>) -> Listener {
    Listener {
        name: "mcp".to_owned(),
        port: 8080,
        hostname: hostname.map(str::to_owned),
        path: "/mcp".to_owned(),
        tls: None,
        allowed_origins: vec!["https://app.example".to_owned()],
    }
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
    };
    let mut map = HeaderMap::new();
    for (name, value) in pairs.iter().map(pair) {
        map.append(name, value);
    }
    map
}

fn origin_ok(pairs: &[(&str, &str)], listener: &Listener, local: IpAddr) -> bool {
    let (headers, uri) = (headers(pairs), Uri::from_static("/mcp"));
    let host = host(&headers, &uri).unwrap_or_default();
    check_origin(&headers, host, listener, local).is_ok()
}

#[test]
fn on_loopback_only_loopback_hosts_are_served() {
    for host in ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", "127.1.2.3"] {
        assert!(origin_ok(&[("host", host)], &listener(None), LOOPBACK), "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "", "169.254.169.254"]
    {
        assert!(!origin_ok(&[("host", host)], &listener(None), LOOPBACK), "{host}");
    }
}

#[test]
fn a_foreign_or_null_or_repeated_origin_is_refused() {
    for origin in ["https://evil.example", "null", "http://localhost.evil.example", "file://"] {
        assert!(
            !origin_ok(&[("host", "localhost"), ("origin", origin)], &listener(None), LOOPBACK),
            "{origin}"
        );
    }
    for origin in ["http://localhost:3000", "http://127.0.0.1", "https://app.example"] {
        assert!(
            origin_ok(&[("host", "localhost"), ("origin", origin)], &listener(None), LOOPBACK),
            "{origin}"
        );
    }
    let twice = [("host", "localhost"), ("origin", "http://localhost"), ("origin", "https://evil.example")];
    assert!(!origin_ok(&twice, &listener(None), LOOPBACK));
}

#[test]
fn a_listener_with_a_host_name_serves_that_name_only() {
    let named = listener(Some("mcp.example"));
    assert!(origin_ok(&[("host", "MCP.example:443")], &named, PUBLIC));
    assert!(!origin_ok(&[("host", "other.example")], &named, PUBLIC));
    assert!(!origin_ok(&[("host", "mcp.example"), ("host", "mcp.example")], &named, PUBLIC));
}

#[test]
fn what_a_page_may_send_unasked_is_no_message() {
    for content in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""] {
        assert!(check_media(&headers(&[("content-type", content)])).is_err(), "{content}");
    }
    assert!(check_media(&headers(&[("content-type", "application/json; charset=utf-8")])).is_ok());
    assert!(
        check_media(&headers(&[("content-type", "application/json"), ("content-encoding", "gzip")])).is_err()
    );
}

#[test]
fn a_client_that_takes_neither_form_is_told_so() {
    let accept = |value| check_media(&headers(&[("content-type", "application/json"), ("accept", value)]));
    for value in ["application/json", "text/event-stream;q=0.5, x/y", "*/*", "text/*"] {
        assert!(accept(value).is_ok(), "{value}");
    }
    assert!(accept("text/html").is_err());
}

#[test]
fn accept_takes_what_it_names_most_closely_and_refuses_what_it_gives_no_weight() {
    let taken = |accept: &str| accepts(&headers(&[("accept", accept)]), "application/json");
    for accept in [
        "*/*",
        "application/*;q=0.1",
        "text/html, Application/JSON; q=1",
        "*/*;q=0, application/json",
        "application/json;q=0.001",
    ] {
        assert!(taken(accept), "{accept}");
    }
    for accept in [
        "text/event-stream",
        "application/json;q=0",
        "*/*, application/json; Q=0.000",
        "application/*;q=0., */*",
        "",
    ] {
        assert!(!taken(accept), "{accept}");
    }
    assert!(accepts(&HeaderMap::new(), "application/json"));
}
