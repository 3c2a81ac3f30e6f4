//! Tables of configurations as users write them.

use super::*;

const PROXY: &str = "http://127.0.0.1:4711";

fn none() -> Environment {
    Environment::new()
}

fn check(text: &str, expected: &str, routes: &[&str]) {
    let found = redirect(text, &none(), PROXY).unwrap();
    assert_eq!(found.text, expected);
    let led: Vec<String> = found
        .routes
        .iter()
        .map(|route| {
            format!(
                "{} -> {} ({})",
                route.name,
                route.base_url,
                route.aliases.join(", ")
            )
        })
        .collect();
    assert_eq!(led, routes);
    assert!(
        same_meaning(&strip(&found.text, text).unwrap(), text).unwrap(),
        "strip is not the way back:\n{text}"
    );
    // Redirecting what is redirected leads to the same place, at another port too.
    let again = redirect(&found.text, &none(), PROXY).unwrap();
    assert_eq!(again.text.is_empty(), found.text.is_empty());
}

#[test]
fn every_alias_is_led_and_everything_else_stays() {
    check("", "", &[]);
    check(
        "# mine\ndefault_model = \"m\" # keep\n\n[providers.p]\ntype = \"kimi\"\nbase_url = \"https://h/v1\"\napi_key = \"sk\"\n\n[models.m] # here\nprovider = \"p\"\nmodel = \"kimi-k2.6\"\nmax_context_size = 1\nodd = true\n\n[other]\nx = 1\n",
        "# mine\ndefault_model = \"m\" # keep\n\n[providers.p]\ntype = \"kimi\"\nbase_url = \"https://h/v1\"\napi_key = \"sk\"\n\n[models.m] # here\nprovider = \"p\"\nmodel = \"kimi-k2.6\"\nmax_context_size = 1\nodd = true\nbase_url = \"http://127.0.0.1:4711/p/p/v1\"\n\n[other]\nx = 1\n",
        &["p -> https://h (m)"],
    );
}

#[test]
fn any_way_to_write_a_table_works() {
    check(
        "providers.p = { type = \"anthropic\", base_url = \"https://h\" }\nmodels.m = { provider = \"p\", model = \"x\" }\n",
        "providers.p = { type = \"anthropic\", base_url = \"https://h\" }\nmodels.m = { provider = \"p\", model = \"x\" , base_url = \"http://127.0.0.1:4711/p/p\" }\n",
        &["p -> https://h (m)"],
    );
    check(
        "[providers]\np.type = \"openai\"\n[models]\nm.provider = \"p\"\nm.model = \"x\"\n",
        "[providers]\np.type = \"openai\"\n[models]\nm.provider = \"p\"\nm.model = \"x\"\nm.base_url = \"http://127.0.0.1:4711/p/p/v1\"\n",
        &["p -> https://api.openai.com (m)"],
    );
    check(
        "[providers.\"we.ird/id\"]\ntype = \"openai\"\n[models.\"a/b.c \\\"q\\\"\"]\nprovider = \"we.ird/id\"\nmodel = \"x\"\n",
        "[providers.\"we.ird/id\"]\ntype = \"openai\"\n[models.\"a/b.c \\\"q\\\"\"]\nprovider = \"we.ird/id\"\nmodel = \"x\"\nbase_url = \"http://127.0.0.1:4711/p/we.ird%2Fid/v1\"\n",
        &["we.ird/id -> https://api.openai.com (a/b.c \"q\")"],
    );
}

#[test]
fn an_alias_with_its_own_address_gets_its_own_route() {
    check(
        "[providers.p]\ntype = \"kimi\"\n[models.a]\nprovider = \"p\"\n[models.b]\nprovider = \"p\"\nbase_url = \"https://own/v1\" # mine\n[models.c]\nprotocol = \"openai\"\nbase_url = \"https://c\"\n",
        "[providers.p]\ntype = \"kimi\"\n[models.a]\nprovider = \"p\"\nbase_url = \"http://127.0.0.1:4711/p/p/v1\"\n[models.b]\nprovider = \"p\"\nbase_url = \"http://127.0.0.1:4711/p/p~b/v1\" # mine\n[models.c]\nprotocol = \"openai\"\nbase_url = \"http://127.0.0.1:4711/p/~c\"\n",
        &[
            "p -> https://api.moonshot.ai (a)",
            "p~b -> https://own (b)",
            "~c -> https://c (c)",
        ],
    );
}

#[test]
fn managed_aliases_are_declared_in_advance() {
    let text = "[providers.\"managed:kimi-code\"]\ntype = \"kimi\"\nbase_url = \"https://api.kimi.com/coding/v1\"\noauth = { storage = \"file\", key = \"oauth/kimi-code\" }\n";
    let found = redirect(text, &none(), PROXY).unwrap();
    assert_eq!(
        found.routes[0].aliases,
        [
            "kimi-code/kimi-for-coding",
            "kimi-code/kimi-for-coding-highspeed",
            "kimi-code/k3"
        ]
    );
    assert_eq!(found.routes[0].base_url, "https://api.kimi.com/coding");
    assert!(
        found.text.contains(
            "[models.\"kimi-code/k3\"]\nprovider = \"managed:kimi-code\"\nmodel = \"k3\"\n"
        )
    );
    assert_eq!(
        found
            .text
            .matches("base_url = \"http://127.0.0.1:4711/p/managed%3Akimi-code/v1\"")
            .count(),
        3
    );
    assert_eq!(strip(&found.text, text).unwrap(), text);
}

#[test]
fn a_synthetic_model_is_led_by_its_variable() {
    let env = [
        ("KIMI_MODEL_NAME", "x"),
        ("KIMI_MODEL_API_KEY", "sk"),
        ("KIMI_MODEL_BASE_URL", "https://h/v1"),
    ];
    let env = env
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let found = redirect("", &env, PROXY).unwrap();
    assert_eq!(
        found.env,
        [(
            "KIMI_MODEL_BASE_URL".into(),
            "http://127.0.0.1:4711/p/__kimi_env__/v1".into()
        )]
    );
    assert_eq!(found.routes[0].base_url, "https://h");
}

#[test]
fn a_synthetic_google_model_stays_direct_and_is_told() {
    let env = [
        ("KIMI_MODEL_NAME", "x"),
        ("KIMI_MODEL_API_KEY", "sk"),
        ("KIMI_MODEL_PROVIDER_TYPE", "google-genai"),
    ];
    let env = env.map(|(name, value)| (name.into(), value.into()));
    let found = redirect("", &env.into(), PROXY).unwrap();
    assert!(found.env.is_empty() && found.routes.is_empty());
    assert_eq!(
        found.warnings[0].to_string(),
        "model __kimi_env_model__ is not led through kimiq: kimiq cannot limit the Google dialect"
    );
}

#[test]
fn what_cannot_be_led_is_told() {
    let text = "[providers.v]\ntype = \"vertexai\"\n[models.g]\nprovider = \"v\"\nmodel = \"gemini\"\n[models.lost]\nprovider = \"none\"\n";
    let found = redirect(text, &none(), PROXY).unwrap();
    assert_eq!(found.text, text);
    assert_eq!(found.warnings.len(), 2);
}

#[test]
fn a_broken_file_is_named_by_its_line_only() {
    let error = redirect("a = 1\napi_key = \"sk-secret\n", &none(), PROXY)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("line 2") && !error.contains("secret"),
        "{error}"
    );
}

const USER: &str = "# mine\ndefault_model = \"m\"\n\n[providers.p]\ntype = \"kimi\"\n\n[models.m]\nprovider = \"p\"\nmodel = \"x\"\n";

fn carried(change: impl Fn(&str) -> String, user_now: &str) -> Option<String> {
    let before = redirect(USER, &none(), PROXY).unwrap().text;
    carry_back(&before, &change(&before), user_now).unwrap()
}

#[test]
fn a_model_choice_that_re_emits_the_whole_file_is_carried_back_as_one_line() {
    let after = |_: &str| {
        "default_model = \"other\"\n[models.m]\nbase_url = \"http://127.0.0.1:4711/p/p/v1\"\nmodel = \"x\"\nprovider = \"p\"\n\n[providers.p]\ntype = \"kimi\"\n[thinking]\nenabled = true\n".to_owned()
    };
    assert_eq!(
        carried(after, USER).unwrap(),
        USER.replace("\"m\"", "\"other\"") + "\n[thinking]\nenabled = true\n"
    );
}

#[test]
fn line_ends_stay_as_they_are() {
    let user = USER.replace('\n', "\r\n");
    let before = redirect(&user, &none(), PROXY).unwrap().text;
    let after = before.replace("\"m\"", "\"other\"");
    let carried = carry_back(&before, &after, &user).unwrap().unwrap();
    assert_eq!(carried, user.replace("\"m\"", "\"other\""));
    assert_eq!(
        strip(&before.replace("\r\n", "\n").replace('\n', "\r\n"), &user).unwrap(),
        user
    );
}

#[test]
fn nothing_of_ours_is_carried_back() {
    assert_eq!(carried(str::to_owned, USER), None);
    // A crash between our two writes leaves a new alias that only the overlay knows, with our address.
    let after = |before: &str| {
        format!(
            "{before}\n[models.new]\nprovider = \"p\"\nbase_url = \"http://127.0.0.1:9/p/p/v1\"\n"
        )
    };
    assert_eq!(
        carried(after, USER).unwrap(),
        format!("{USER}\n[models.new]\nprovider = \"p\"\n")
    );
    // Only the port differs.
    assert_eq!(carried(|before| before.replace("4711", "4712"), USER), None);
}

#[test]
fn the_user_s_own_edit_wins() {
    let now = USER.replace("\"m\"", "\"mine\"");
    assert_eq!(
        carried(|before| before.replace("\"m\"", "\"theirs\""), &now),
        None
    );
    let both = carried(
        |before| before.replace("\"m\"", "\"theirs\"") + "[providers.q]\ntype = \"openai\"\n",
        &now,
    )
    .unwrap();
    // A new provider lands beside its siblings.
    assert_eq!(
        both,
        now.replace(
            "\n[models.m]",
            "\n[providers.q]\ntype = \"openai\"\n\n[models.m]"
        )
    );
}

#[test]
fn a_removed_provider_goes_with_its_models() {
    let after = |_: &str| "default_model = \"m\"\n".to_owned();
    assert_eq!(
        carried(after, USER).unwrap(),
        "# mine\ndefault_model = \"m\"\n"
    );
}

#[test]
fn an_address_that_the_user_sets_inside_is_his() {
    let after = |before: &str| before.replace("http://127.0.0.1:4711/p/p/v1", "https://new/v1");
    assert_eq!(
        carried(after, USER).unwrap(),
        format!("{USER}base_url = \"https://new/v1\"\n")
    );
}

#[test]
fn a_declared_managed_model_is_carried_back_once_it_is_chosen() {
    let user = "default_model = \"m\"\n[providers.\"managed:kimi-code\"]\ntype = \"kimi\"\n[models.m]\nprovider = \"managed:kimi-code\"\nmodel = \"x\"\n";
    let before = redirect(user, &none(), PROXY).unwrap().text;
    let after = before.replace("default_model = \"m\"", "default_model = \"kimi-code/k3\"");
    let carried = carry_back(&before, &after, user).unwrap().unwrap();
    assert!(carried.starts_with("default_model = \"kimi-code/k3\""));
    assert!(
        carried.contains("[models.\"kimi-code/k3\"]")
            && !carried.contains("highspeed")
            && !carried.contains("127.0.0.1")
    );
}

proptest::proptest! {
    /// Whatever names, types, addresses and layouts there are: the way back leads to where we came from, every alias that can
    /// be led is led, and no provider's own address is touched.
    #[test]
    fn strip_is_the_way_back(
        providers in proptest::collection::btree_map(".{1,12}", (0..5_usize, proptest::option::of("https://[a-z]{1,5}(/v1)?/?")), 0..4),
        aliases in proptest::collection::btree_map(".{1,12}", (0..4_usize, proptest::option::of("https://[a-z]{1,5}(/v1)?")), 0..5),
        inline in proptest::bool::ANY,
        managed in proptest::bool::ANY,
    ) {
        const TYPES: [&str; 5] = ["kimi", "openai", "openai_responses", "anthropic", "vertexai"];
        let mut document = DocumentMut::new();
        let mut names: Vec<String> = providers.keys().cloned().collect();
        names.extend(managed.then(|| MANAGED_PROVIDER.to_owned()));
        let mut section = |section: &str, name: &str, fields: Vec<(&str, String)>| {
            let mut table = Table::new();
            for (key, text) in fields {
                table.insert(key, value(text));
            }
            let item = if inline { value(table.into_inline_table()) } else { Item::Table(table) };
            let all = document.entry(section).or_insert_with(|| Item::Table(Table::new()));
            all.as_table_mut().unwrap().insert(name, item);
        };
        for name in &names {
            let (kind, base) = providers.get(name).cloned().unwrap_or_default();
            let mut fields = vec![("type", TYPES[kind].to_owned())];
            fields.extend(base.map(|base| ("base_url", base)));
            section("providers", name, fields);
        }
        for (alias, (at, base)) in &aliases {
            let mut fields = vec![("model", "x".to_owned())];
            fields.extend(names.get(*at).map(|name| ("provider", name.clone())));
            fields.extend(base.clone().map(|base| ("base_url", base)));
            section("models", alias, fields);
        }
        let text = document.to_string();
        let found = redirect(&text, &none(), PROXY).unwrap();
        let led: DocumentMut = found.text.parse().unwrap();
        proptest::prop_assert!(same_meaning(&strip(&found.text, &text).unwrap(), &text).unwrap(), "{}", found.text);
        proptest::prop_assert_eq!(carry_back(&found.text, &found.text.replace("4711", "4712"), &text).unwrap(), None);
        let direct: usize = found.warnings.len();
        proptest::prop_assert_eq!(unled(&found.text).unwrap().len(), direct);
        for name in &names {
            let address = led["providers"][name.as_str()].get("base_url").and_then(Item::as_str);
            let own = providers.get(name).and_then(|(_, base)| base.as_deref());
            proptest::prop_assert_eq!(address, own);
        }
        let mut routes: Vec<&String> = found.routes.iter().map(|route| &route.name).collect();
        routes.sort();
        routes.dedup();
        proptest::prop_assert_eq!(routes.len(), found.routes.len());
    }
}
