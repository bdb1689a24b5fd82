def test_smoke(house):
    house.publish("order-sync", name="x") if False else house.publish("order-sync")
    house.publish("order-sync", "https://b.example/")
    house.save("order-sync", "https://c.example/", name="Orders")
    for r in house.rows("workflows"):
        print(r)
    for r in house.rows("workflow_versions"):
        print({k: v for k, v in r.items() if k != "definition"})
    for f in house.facts:
        print(f.type, f.object, f.at, f.data)
    for f in house.rows("audit_log"):
        print(f)
    assert len(house.rows("events")) == len(house.facts)
    assert 0
