use super::*;
use proptest::prelude::*;
use sandbar_testkit::{Samples, Took, fuzz};

/// What decides a variable written as `NAME=value`.
fn decided(variable: &str) -> Option<String> {
    let (name, value) = variable.split_once('=').unwrap();
    let (name, value) = (name.as_bytes(), value.as_bytes());
    let word = word_in_name(name, value).map(str::to_owned);
    word.or_else(|| shape_of_value(name, value).map(|shape| shape.to_string()))
}

/// Tokens are put together here so that no scanner takes this file for a leak.
fn token(prefix: &str, tail: &str) -> String {
    format!("{prefix}{tail}")
}

const TAIL: &str = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8";

#[test]
fn further_values_that_let_somebody_in_are_found() {
    let bot = token("123456789:AA", &TAIL[..33]);
    let age = token("AGE-SECRET-KEY-1", &TAIL.to_ascii_uppercase());
    let found = [
        ("X=Basic dXNlcjpwYXNz", "an authorization header"),
        ("X=bearer a1.b2-c3_d4", "an authorization header"),
        ("X=https://h/x?access_token=abcdef123", "a URL that is secret itself"),
        ("X=https://h/x?sig=abcdef123", "a URL that is secret itself"),
        (&format!("X={bot}"), "a token"),
        (&format!("X=https://api.telegram.org/bot{bot}/send"), "a token"),
        (&format!("X={age}"), "a token"),
    ];
    for (variable, shape) in found {
        assert_eq!(decided(variable).as_deref(), Some(shape), "{variable}");
    }
    for harmless in [
        "PATTERN=x",
        "X=Basic usage",
        "X=Basic Authentication",
        "X=12:AAbb",
        "X=https://h/?sigma=1",
        "COMPAT=7x",
    ] {
        assert_eq!(decided(harmless), None, "{harmless}");
    }
}

#[test]
fn names_that_mean_credentials_are_found_by_their_word() {
    let rows = [
        ("PGPASSWORD", "PASSWORD"),
        ("mysql_root_password", "PASSWORD"),
        ("TWINE_PASSWORD", "PASSWORD"),
        ("FTP_PASSWD", "PASSWD"),
        ("GPG_PASSPHRASE", "PASSPHRASE"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "CREDENTIAL"),
        ("AWS_CREDS", "CREDS"),
        ("AWS_CREDS_JSON", "CREDS"),
        ("GCP_CRED", "CRED"),
        ("DEPLOY_PRIVATE", "PRIVATE"),
        ("PRIVATE_PEM", "PRIVATE"),
        ("DB_PASS", "PASS"),
        ("DB_PASS_2", "PASS"),
        ("db.pass1", "PASS"),
        ("SSHPASS", "SSHPASS"),
        ("DB_PW", "PW"),
        ("GITHUB_PAT", "PAT"),
        ("STORAGE_CONNECTION_STRING", "CONNECTION_STRING"),
        ("ConnectionStrings__Default", "CONNECTIONSTRING"),
        ("DB_PWD", "PWD"),
        ("MYSQL_PWD", "PWD"),
        ("REDISCLI_AUTH", "AUTH"),
        ("NPM_CONFIG__AUTH", "AUTH"),
        ("npm_config_//registry.example.com/:_auth", "AUTH"),
        ("DOCKER_AUTH_CONFIG", "AUTH_CONFIG"),
        ("HTTP_AUTHORIZATION", "AUTHORIZATION"),
        ("X_BEARER", "BEARER"),
        ("CI_JOB_JWT", "JWT"),
        ("CI_JOB_JWT_V2", "JWT"),
        ("RELEASE_COOKIE", "COOKIE"),
        ("GIT_CONFIG_VALUE_0", "GIT_CONFIG_VALUE_"),
        ("GIT_CONFIG_COUNT", "GIT_CONFIG_COUNT"),
        ("BW_SESSION", "BW_SESSION"),
        ("OP_SESSION_family", "OP_SESSION_"),
        ("DIRENV_DIFF", "DIRENV_DIFF"),
    ];
    for (name, word) in rows {
        assert_eq!(word_in_name(name.as_bytes(), b"hunter2"), Some(word), "{name}");
    }
}

#[test]
fn of_gits_configuration_by_variables_nothing_is_left_to_stumble_over() {
    for variable in ["GIT_CONFIG_COUNT=1", "GIT_CONFIG_VALUE_0=true"] {
        assert!(decided(variable).is_some(), "{variable}");
    }
}

#[test]
fn what_ordinary_development_needs_is_no_credential() {
    let kept = [
        "PATH=/home/u/.cargo/bin:/usr/bin:/bin",
        "PWD=/home/u/sk-learn/project-2024",
        "PWD=/",
        "OLDPWD=/tmp",
        "BUILD_PWD=/home/u/src",
        "SSH_AUTH_SOCK=/tmp/ssh-XXXXabcd/agent.1",
        "XAUTHORITY=/home/u/.Xauthority",
        "SESSION_MANAGER=local/host:@/tmp/.ICE-unix/1,unix/host:/tmp/.ICE-unix/1",
        "XDG_SESSION_TYPE=wayland",
        "XDG_SESSION_ID=2",
        "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus,guid=8a1b2c3d4e5f60718293a4b5c6d7e8f9",
        "AUTHOR=Ada",
        "GIT_AUTHOR_NAME=Ada Lovelace",
        "GIT_AUTHOR_EMAIL=ada@example.com",
        "GIT_COMMITTER_DATE=2024-01-01T00:00:00Z",
        "COMPASS=north",
        "BYPASS=x",
        "ENCOMPASS=x",
        "PASSENGER_APP_ENV=production",
        "SUDO_ASKPASS=/usr/bin/ssh-askpass",
        "GIT_ASKPASS=/usr/lib/vscode/askpass.sh",
        "PGPASSFILE=/home/u/.pgpass",
        "GOPRIVATE=github.com/acme/*",
        "GOPROXY=https://proxy.golang.org,direct",
        "POSTGRES_HOST_AUTH_METHOD=trust",
        "NPM_CONFIG_ALWAYS_AUTH=true",
        "DISABLE_AUTH=1",
        "DB_PASSWORD=",
        "ENABLE_WEBHOOKS=false",
        "WEBHOOK_PORT=9443",
        "DATABASE_URL=postgres://user@localhost:5432/app",
        "DATABASE_URL=postgres://localhost/app",
        "TEST_DSN=host=/run/postgresql dbname=test",
        "HTTPS_PROXY=http://proxy.example.com:3128",
        "NO_PROXY=localhost,127.0.0.1,::1,.example.com",
        "NPM_CONFIG_REGISTRY=https://registry.example.com:8443/@scope/",
        "GIT_URL=git@github.com:acme/repository.git",
        "GIT_SSH_URL=ssh://git@github.com:22/acme/repository.git",
        "URL_TEMPLATE=https://user:${DB_PASS}@host/",
        "PS1=\\u@\\h:\\w\\$ ",
        "LS_COLORS=rs=0:di=01;34:ln=01;36:*.tar=01;31:*.jpg=01;35:",
        "JAVA_TOOL_OPTIONS=-Djavax.net.ssl.trustStore=/etc/ca.jks -Djavax.net.ssl.trustStorePassword=changeit",
        "RUSTFLAGS=-C target-cpu=native",
        "CARGO_HOME=/home/u/.cargo",
        "npm_config_user_agent=npm/10.8.2 node/v22.0.0 linux x64 workspaces/false",
        "npm_package_name=sk-internal-tools-for-everything",
        "PYTHONPATH=src:sk-learn-compat",
        "LESSOPEN=| /usr/bin/lesspipe %s",
        "BASH_FUNC_get%%=() {  curl -H \"Authorization: Bearer $1\" https://example.com; }",
        "SSL_CERT=-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "GITHUB_SHA=8a1b2c3d4e5f60718293a4b5c6d7e8f98a1b2c3d",
        "WSLENV=PATH/l:TMP/p",
        "LANG=C.UTF-8",
        "_=/usr/bin/env",
    ];
    for variable in kept {
        assert_eq!(decided(variable), None, "{variable}");
    }
}

#[test]
fn values_that_are_credentials_are_found_whatever_they_are_called() {
    let url = "a URL with a password";
    let rows = [
        ("DATABASE_URL=postgres://u:p@h/db".to_owned(), url),
        ("REDIS=redis://:hunter2@localhost:6379".to_owned(), url),
        ("PIP_INDEX_URL=https://ci:hunter2@pypi.example.com/simple".to_owned(), url),
        ("HTTPS_PROXY=http://u:p%40@proxy:3128".to_owned(), url),
        ("https_proxy=u:p@proxy:3128".to_owned(), url),
        ("GOPROXY=https://proxy.golang.org,https://u:p@go.example.com".to_owned(), url),
        ("MONGO=mongodb+srv://u:p@a:1,b:2/db".to_owned(), url),
        ("DATA=root:hunter2@tcp(localhost)/db".replace("DATA", "DB_URL"), url),
        (format!("REMOTE=https://{}@git.example.com/x", "a1b2c3d4e5f6a7b8c9d0e1f2"), url),
        ("SLACK_WEBHOOK_URL=https://example.com/x".to_owned(), "WEBHOOK"),
        ("NOTIFY=https://hooks.slack.com/services/T0/B0/x".to_owned(), "a URL that is secret itself"),
        (
            "LINK=https://b.example.com/o?X-Amz-Date=1&X-Amz-Signature=ab12".to_owned(),
            "a URL that is secret itself",
        ),
        ("SENTRY_DSN=https://8a1b2c3d@o1.ingest.example.com/1".to_owned(), "DSN"),
        ("MY_DSN=host=h password=hunter2".to_owned(), "DSN"),
        ("STORAGE=AccountName=a;AccountKey=aGk=;".to_owned(), "settings with a password"),
        ("CONNECTION=Server=h;Pwd=hunter2".to_owned(), "settings with a password"),
        ("MAVEN_OPTS=-Xmx1g -Dhttp.proxyPassword=hunter2".to_owned(), "settings with a password"),
        (r#"CONFIG={"user": "u", "client_secret": "hunter2"}"#.to_owned(), "settings with a password"),
        ("OTEL_HEADERS=Authorization=Basic aGk=".to_owned(), "an authorization header"),
        (
            "GIT_CONFIG_PARAMETERS='http.extraheader=AUTHORIZATION: basic aGk='".to_owned(),
            "an authorization header",
        ),
        ("A=-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl".to_owned(), "a private key"),
        ("A=-----BEGIN PRIVATE KEY-----\\nMIIE".to_owned(), "a private key"),
        (
            r#"A={"type":"service_account","x":"-----BEGIN RSA PRIVATE KEY-----\n"}"#.to_owned(),
            "a private key",
        ),
    ];
    for (variable, by) in rows {
        assert_eq!(decided(&variable).as_deref(), Some(by), "{variable}");
    }
}

#[test]
fn tokens_of_known_issuers_are_found_alone_and_within() {
    let tokens = [
        token("ghp_", TAIL),
        token("github_pat_", TAIL),
        token("glpat-", "a1B2c3D4e5F6g7H8i9J0"),
        token("sk-", TAIL),
        token("sk-proj-", TAIL),
        token("sk-ant-api03-", TAIL),
        token("xoxb-", "123456789012-abc"),
        token("npm_", TAIL),
        token("AKIA", "ABCDEFGHIJKLMN12"),
        token("AIza", TAIL),
        token("eyJhbGciOiJIUzI1NiJ9.", "eyJzdWIiOiIxIn0.c2ln"),
        token("LS0tLS1CRUdJTiBSU0Eg", TAIL),
    ];
    for token in tokens {
        let within = format!("--header={token},x");
        for value in [token.clone(), within, format!("\"{token}\""), format!("a {token}\n")] {
            assert_eq!(shape(value.as_bytes()), Some(Shape::Token), "{value}");
        }
        // A directory may be called anything.
        assert_eq!(shape(format!("/srv/{token}").as_bytes()), None, "{token}");
    }
}

#[test]
fn what_only_begins_like_a_token_is_none() {
    let values = [
        "sk-learn-compatible-estimators-for-everyone",
        "npm_config_cache",
        "npm_lifecycle_event",
        "hf_hub_download",
        "AKIATA",
        "AKIAabcdefghijklmnop",
        "eyJ",
        "eyJhbGciOi.x.y",
        "SG.html",
        "ghp_short",
        "pul-request",
    ];
    for value in values {
        assert_eq!(shape(value.as_bytes()), None, "{value}");
    }
}

#[test]
fn no_word_or_prefix_hides_behind_another() {
    for (index, Word { text, .. }) in NAMES.iter().enumerate() {
        assert!(!NAMES[..index].iter().any(|other| other.text == *text), "{text} is there twice");
        assert_eq!(text.to_ascii_uppercase(), *text);
    }
    for (index, (prefix, _)) in TOKENS.iter().enumerate() {
        let earlier = TOKENS[..index].iter().find(|(other, _)| other == prefix);
        assert_eq!(earlier, None, "{prefix} is there twice");
        assert!(prefix.as_bytes()[0].is_ascii_alphabetic(), "{prefix} is looked for behind a letter only");
    }
    for key in SETTINGS.map(|(key, _)| key).into_iter().chain(JSON_KEYS) {
        let found = [format!("{key}=hunter2"), format!("\"{key}\": \"hunter2\"")];
        assert!(found.iter().any(|text| shape(text.as_bytes()).is_some()), "{key} is never looked for");
    }
}

#[test]
fn fuzz_no_text_hides_a_url_with_a_password() {
    let samples = Samples {
        whole: &[
            b"https://u:hunter2@example.com/x",
            b"Authorization: Bearer x\n\"auth\": \"x\"",
            b"Server=db;Password=hunter2;Database=x",
            b"eyJhb.x.y",
        ],
        words: &[
            b"https",
            b"://",
            b":",
            b"//",
            b"@",
            b"/",
            b"?",
            b"=",
            b"&",
            b";",
            b"\"",
            b"'",
            b"$",
            b"{",
            b"*",
            b"%s",
            b"\n",
            b"password",
            b"authorization",
            b"AKIA",
            b"eyJ",
            b".",
            b"ghp_",
            b"sk-",
            b"a1B2c3D4e5F6g7H8i9J0",
            b" ",
            b"-----BEGIN",
            b" PRIVATE KEY",
            b"hooks.slack.com/services/",
            b"x-amz-signature",
            b"&sig",
        ],
    };
    fuzz("credentials", samples, |input| {
        let found = shape(input);
        assert!(shape(&[input, b" https://user:hunter2@example.com/"].concat()).is_some());
        assert_eq!(shape(&[b" ", input].concat()).is_some(), found.is_some());
        for name in [&b"URL"[..], b"DSN", b"MY_PASSWORD", b"X"] {
            assert!(found.is_none() || shape_of_value(name, input) == found);
            let _ = word_in_name(name, input);
        }
        // A name is as foreign as a value.
        let _ = (word_in_name(input, b"/a/b"), shape_of_value(input, b"a:b@c"));
        Took::if_understood(found.is_some())
    });
}

proptest! {
    #[test]
    fn text_of_the_alphabet_of_credentials_is_looked_at_without_a_panic(
        value in "([:=@/?&;\"'<>-]|https?|password|user|BUNDLE_A__B|[$]|/t/|<!--|-->|value| |\n){0,24}",
    ) {
        let _ = shape_of_value(b"URL", value.as_bytes());
    }

    #[test]
    fn a_url_with_a_password_is_found_wherever_it_stands(
        before in "[a-z ]{0,8}", user in "[a-z]{0,6}", password in "[a-zA-Z0-9%._~-]{1,12}", host in "[a-z.]{1,8}",
    ) {
        prop_assume!(!is_placeholder(password.as_bytes()));
        let value = format!("{before} https://{user}:{password}@{host}/path");
        prop_assert!(shape(value.as_bytes()).is_some(), "{}", value);
    }
}
