#[test]
fn show() {
    println!("{}", serde_json::to_string_pretty(&lifeboat_config::schema()).unwrap());
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/lifeboat.example.toml")).unwrap();
    match lifeboat_config::Config::parse("lifeboat.example.toml", &text) {
        Ok(l) => println!("{l:#?}"),
        Err(p) => panic!("{p}"),
    }
}
