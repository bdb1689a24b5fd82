"""Values that masking must hide, and values that it must leave, as they occur in real workflows and logs.

Each case is where the value stands, the value, and its kind. `[name=API_KEY]` in a place tells a neighbour
of the value: it stands in an item whose `name` is `API_KEY`. The cases were written before the code, by
someone else than its author: do not change a case to suit the code. No secret here was ever in use. Tokens
and keys are put together from parts, so that no scanner refuses a push of this file.
"""

import base64
import json
import random
import string
from typing import NamedTuple


class Case(NamedTuple):
    """A value at its place in a definition, a log record, an event or a summary."""

    where: str
    value: str
    kind: str


_HEX = string.digits + "abcdef"
_ALNUM = string.ascii_letters + string.digits
_URL64 = _ALNUM + "-_"
_BASE32 = string.ascii_uppercase + "234567"
_B64 = _ALNUM + "+/"


def _drawn(alphabet: str, length: int, seed: str) -> str:
    return "".join(random.Random(f"masking {seed}").choices(alphabet, k=length))  # noqa: S311


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _jwt(seed: str, **claims: object) -> str:
    parts = [json.dumps(part, separators=(",", ":")) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    encoded = [base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, _drawn(_URL64, 43, seed)])


def _pem(label: str, seed: str, lines: int = 6) -> str:
    body = "\n".join(_drawn(_B64, 64, f"{seed} {line}") for line in range(lines))
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"


_GITHUB = "gh" + "p_" + _drawn(_ALNUM, 36, "github")
_GITHUB_APP = "gh" + "s_" + _drawn(_ALNUM, 36, "github app")
_GITHUB_FINE = "github" + "_pat_" + _drawn(_ALNUM, 22, "fine 1") + "_" + _drawn(_ALNUM, 59, "fine 2")
_GITLAB = "glp" + "at-" + _drawn(_URL64, 20, "gitlab")
_SLACK_BOT = (
    "xo"
    + "xb-"
    + f"{_drawn('123456789', 12, 's1')}-{_drawn('123456789', 13, 's2')}-{_drawn(_ALNUM, 24, 's3')}"
)
_SLACK_HOOK = (
    "https://hooks." + f"slack.com/services/T{_drawn(_BASE32, 8, 'h1')}/B{_drawn(_BASE32, 10, 'h2')}/"
) + _drawn(_ALNUM, 24, "h3")
_DISCORD_HOOK = "https://discord.com/api/web" + f"hooks/1093847561029384756/{_drawn(_URL64, 68, 'discord')}"
_STRIPE = "sk" + "_live_" + _drawn(_ALNUM, 24, "stripe")
_AWS_ID = "AK" + "IA" + _drawn(_BASE32, 16, "aws id")
_AWS_SECRET = _drawn(_B64, 40, "aws secret")
_GOOGLE = "AI" + "za" + _drawn(_URL64, 35, "google")
_GOOGLE_OAUTH = "ya" + "29." + "a0AfH6SM" + _drawn(_URL64, 120, "oauth")
_NPM = "np" + "m_" + _drawn(_ALNUM, 36, "npm")
_PYPI = "py" + "pi-AgEIcHlwaS5vcmc" + _drawn(_URL64, 140, "pypi")
_SENDGRID = "S" + "G." + _drawn(_URL64, 22, "sg1") + "." + _drawn(_URL64, 43, "sg2")
_TWILIO = "S" + "K" + _drawn(_HEX, 32, "twilio")
_SERVICE_ROLE = _jwt("sb", iss="supabase", ref="qxkzwvnpabcd", role="service_role", iat=1700000000)
_USER_JWT = _jwt("user", sub="1234567890", name="Ada Lovelace", exp=1893456000)
_SUPABASE = "sb" + "p_" + _drawn(_HEX, 40, "sbp")
_SUPABASE_SECRET = "sb" + "_secret_" + _drawn(_URL64, 31, "sbs")
_GST = "gs" + "t_" + _drawn(_URL64, 43, "gst")
_GST_CI = "gs" + "t_" + _drawn(_URL64, 43, "gst ci")
_WHSEC = "wh" + "sec_" + _base64(_drawn(_ALNUM, 24, "whsec"))
_OPENAI = "sk" + "-proj-" + _drawn(_URL64, 48, "openai")
_ANTHROPIC = "sk" + "-ant-api03-" + _drawn(_URL64, 93, "anthropic") + "AA"
_WORD = _drawn(_ALNUM, 18, "a password")
_HEX32, _HEX40, _HEX64 = (_drawn(_HEX, n, f"hex {n}") for n in (32, 40, 64))
_RSA = _pem("RSA PRIVATE" + " KEY", "rsa")
_PKCS8 = _pem("PRIVATE" + " KEY", "pkcs8")

_SECRETS: dict[str, list[tuple[str, str]]] = {
    "secret key": [
        ("nodes[2].config.password", "hunter2"),
        ("nodes[2].config.password", "correct horse battery staple"),
        ("nodes[4].parameters.api_key", "abc123"),
        ("nodes[4].parameters.apiKey", _HEX32),
        ("nodes[1].config.client_secret", "s3cr3t-of-orders"),
        ("nodes[1].config.clientSecret", _drawn(_URL64, 40, "azure client")),
        ("credentials.smtp.pass", "Winter2024!"),
        ("database.passwd", "postgres"),
        ("connection.PASSWORD", "Tr0ub4dor&3"),
        ("connection.db_password", "letmein"),
        ("connection.dbPassword", _WORD),
        ("services.postgres.env.POSTGRES_PASSWORD", "postgres"),
        ("jobs.test.services.mysql.env.MYSQL_ROOT_PASSWORD", "root"),
        ("jobs.deploy.env.AWS_SECRET_ACCESS_KEY", _AWS_SECRET),
        ("jobs.deploy.env.HEROKU_API_KEY", "0f2a9c1e-7b4d-4e8a-9f36-5d1c2b3a4e5f"),
        ("jobs.deploy.env.DD_API_KEY", _HEX32),
        ("config.access_token", "EAAB" + _drawn(_ALNUM, 60, "facebook")),
        ("config.accessToken", "tok-4711"),
        ("config.refresh_token", "1//0e" + _drawn(_URL64, 60, "refresh")),
        ("config.auth_token", "letters-and-94"),
        ("config.authToken", _HEX32),
        ("nodes[0].config.token", "9f8d7c6b5a"),
        ("nodes[0].config.secret", "my webhook secret"),
        ("nodes[0].webhook_secret", "Zebra-42-Lamp"),
        ("nodes[0].webhookSecret", "Zebra-43-Lamp"),
        ("signing_secret", "8f2e1d" + _drawn(_HEX, 26, "signing")),
        ("encryption.private_key", _drawn(_B64, 43, "wireguard") + "="),
        ("tls.privateKey", _PKCS8),
        ("ssh.passphrase", "open sesame"),
        ("session.SECRET_KEY", "dev"),
        ("N8N_ENCRYPTION_KEY", _drawn(_ALNUM, 32, "n8n")),
        ("log.fields.token", _GST),
        ("event.data.config.password", "swordfish"),
    ],
    "name and value": [
        ("spec.template.containers[0].env[name=API_KEY].value", "abc123"),
        ("spec.template.containers[0].env[name=DB_PASSWORD].value", "pg-pass"),
        ("spec.templates[1].container.env[name=GITHUB_TOKEN].value", _GITHUB),
        ("spec.templates[1].container.env[name=SLACK_WEBHOOK_SECRET].value", "lamp-zebra"),
        (
            "nodes[3].parameters.headerParameters.parameters[name=Authorization].value",
            "Basic " + _base64("ci:lamp"),
        ),
        ("nodes[3].parameters.headerParameters.parameters[name=X-Api-Key].value", "k-1029"),
        ("nodes[3].parameters.queryParameters.parameters[name=api_key].value", _HEX32),
        ("nodes[3].parameters.bodyParameters.parameters[name=client_secret].value", "orders-7"),
        ("nodes[3].parameters.bodyParameters.parameters[name=password].value", "qwerty"),
        ("States.Run.Parameters.Overrides.Environment[Name=DB_PASSWORD].Value", "pg-pass-2"),
        ("States.Run.Parameters.Overrides.Environment[Name=STRIPE_SECRET_KEY].Value", _STRIPE),
        ("nodes[5].config.headers[key=X-Auth-Token].value", "b7e1-90aa"),
        ("variables[key=access_token].value", "plain-value-1"),
    ],
    "header": [
        ("nodes[3].config.headers.Authorization", "Bearer " + _drawn(_URL64, 32, "bearer")),
        ("nodes[3].config.headers.Authorization", "Basic " + _base64("admin:" + _WORD)),
        ("nodes[3].config.headers.authorization", "token " + _GITHUB),
        ("nodes[3].config.headers.Authorization", "ApiKey " + _HEX32),
        ("nodes[3].config.headers.Authorization", _HEX40),
        ("nodes[3].config.headers.Proxy-Authorization", "Basic " + _base64("proxy:opensesame")),
        ("nodes[3].config.headers.X-Auth-Token", "7c6b5a"),
        ("nodes[3].config.headers.X-API-Key", "short-key"),
        ("nodes[3].config.headers.x-api-key", _drawn(_ALNUM, 40, "x-api-key")),
        ("nodes[3].config.headers.PRIVATE-TOKEN", _GITLAB),
        ("nodes[3].config.headers.X-Shopify-Access-Token", "shp" + "at_" + _HEX32),
        ("nodes[3].config.headers.apikey", _SERVICE_ROLE),
        ("nodes[3].config.headers.Cookie", "session=" + _drawn(_URL64, 43, "cookie") + "; Path=/"),
        ("nodes[3].config.headers.Ocp-Apim-Subscription-Key", _HEX32),
        ("log.request.headers.Authorization", "Bearer " + _USER_JWT),
    ],
    "known token": [
        ("nodes[0].config.value", _GITHUB),
        ("nodes[0].config.value", _GITHUB_APP),
        ("nodes[0].config.value", _GITHUB_FINE),
        ("nodes[0].config.value", "gh" + "o_" + _drawn(_ALNUM, 36, "gho")),
        ("nodes[0].config.value", _GITLAB),
        ("nodes[0].config.value", "gl" + "rt-" + _drawn(_URL64, 20, "runner")),
        ("nodes[0].config.text", _SLACK_BOT),
        ("nodes[0].config.text", "xo" + "xp-" + f"{_drawn('123456789', 12, 'p')}-" * 3 + _HEX32),
        (
            "nodes[0].config.text",
            "xa" + f"pp-1-A{_drawn(_BASE32, 10, 'x1')}-{_drawn('123456789', 13, 'x2')}-" + _HEX64,
        ),
        ("nodes[1].config.url", _SLACK_HOOK),
        ("nodes[1].config.url", _DISCORD_HOOK),
        ("nodes[2].config.value", _STRIPE),
        ("nodes[2].config.value", "rk" + "_live_" + _drawn(_ALNUM, 24, "rk")),
        ("nodes[2].config.value", "sk" + "_test_" + _drawn(_ALNUM, 24, "sk test")),
        ("env.AWS_ACCESS_KEY_ID", _AWS_ID),
        ("nodes[3].config.value", "AS" + "IA" + _drawn(_BASE32, 16, "sts")),
        ("nodes[3].config.value", _GOOGLE),
        ("nodes[3].config.value", _GOOGLE_OAUTH),
        ("nodes[3].config.value", "GOC" + "SPX-" + _drawn(_URL64, 28, "gocspx")),
        ("jobs.publish.steps[2].with.value", _NPM),
        ("jobs.publish.steps[2].with.value", _PYPI),
        ("nodes[4].config.value", _USER_JWT),
        ("nodes[4].config.value", _SENDGRID),
        ("nodes[4].config.user", _TWILIO),
        ("nodes[5].config.value", _SERVICE_ROLE),
        ("nodes[5].config.value", _SUPABASE),
        ("nodes[5].config.value", _SUPABASE_SECRET),
        ("nodes[6].config.value", _GST),
        ("nodes[6].config.value", _WHSEC),
        ("nodes[7].config.value", _OPENAI),
        ("nodes[7].config.value", _ANTHROPIC),
        ("nodes[7].config.value", "h" + "f_" + _drawn(string.ascii_letters, 34, "hf")),
        ("nodes[8].config.value", "dop" + "_v1_" + _HEX64),
        ("nodes[8].config.value", "hv" + "s." + _drawn(_URL64, 92, "vault")),
        ("nodes[8].config.value", "da" + "pi" + _HEX32),
        ("nodes[8].config.value", "key" + "-" + _HEX32),
        (
            "nodes[8].config.value",
            "gl" + "sa_" + _drawn(_ALNUM, 32, "glsa") + "_" + _drawn(_HEX, 8, "glsa crc"),
        ),
        ("nodes[8].config.value", "li" + "n_api_" + _drawn(_ALNUM, 40, "linear")),
        ("nodes[8].config.value", "nt" + "n_" + _drawn(_ALNUM, 46, "notion")),
        ("nodes[8].config.value", "AGE-" + "SECRET-KEY-1" + _drawn(_BASE32, 58, "age")),
        (
            "nodes[8].config.url",
            "https://api.telegram.org/bot" + "5934817265:AA" + _drawn(_URL64, 33, "tg") + "/sendMessage",
        ),
    ],
    "private key": [
        ("nodes[1].config.key", _RSA),
        ("nodes[1].config.key", _PKCS8),
        ("nodes[1].config.pem", _pem("EC PRIVATE" + " KEY", "ec", 3)),
        ("nodes[1].config.identity", _pem("OPENSSH PRIVATE" + " KEY", "ssh", 8)),
        ("nodes[1].config.pem", _pem("ENCRYPTED PRIVATE" + " KEY", "encrypted")),
        ("nodes[1].config.armored", _pem("PGP PRIVATE KEY" + " BLOCK", "pgp", 10)),
        ("nodes[1].config.json", json.dumps({"type": "service_account", "private_key": _PKCS8})),
        ("jobs.deploy.steps[1].run", f"cat > key.pem <<'EOF'\n{_RSA}EOF\nssh -i key.pem deploy@host\n"),
        ("log.message", "can't load key " + _RSA.replace("\n", "\\n")),
    ],
    "URL with a secret": [
        ("nodes[0].config.url", f"https://ci:{_WORD}@git.example.com/acme/orders.git"),
        ("nodes[0].config.url", f"https://{_GITHUB}@github.com/acme/orders.git"),
        ("nodes[0].config.url", f"https://x-access-token:{_GITHUB_APP}@github.com/acme/orders"),
        ("nodes[0].config.url", f"https://api.example.com/v1/orders?access_token={_HEX40}"),
        ("nodes[0].config.url", "https://api.example.com/v1/orders?page=2&api_key=k1029384756"),
        ("nodes[0].config.url", f"https://maps.googleapis.com/maps/api/geocode/json?address=x&key={_GOOGLE}"),
        ("nodes[0].config.url", f"https://example.com/hook?token={_drawn(_ALNUM, 20, 'hook')}"),
        ("nodes[0].config.url", "https://example.com/login?user=ada&password=lovelace"),
        (
            "nodes[0].config.url",
            f"https://acme.blob.core.windows.net/c/f?sv=2022-11-02&sp=r&sig={_drawn(_ALNUM, 43, 'sas')}%3D",
        ),
        ("nodes[0].config.url", f"https://b.s3.amazonaws.com/k?X-Amz-Expires=60&X-Amz-Signature={_HEX64}"),
        (
            "nodes[0].config.url",
            f"https://example.com/callback#access_token={_drawn(_URL64, 40, 'frag')}&state=1",
        ),
        ("log.message", f"GET /hooks/orders?token={_drawn(_ALNUM, 24, 'log hook')} 401"),
        ("event.data.url", f"https://deploy:{_WORD}@registry.example.com/v2/"),
        ("log.message", f"fatal: could not read from 'https://bot:{_WORD}@git.example.com/orders.git'"),
    ],
    "database URL": [
        ("env.DATABASE_URL", "postgres://app:s3cret@db.internal:5432/app"),
        ("env.DATABASE_URL", f"postgresql://postgres:{_WORD}@db.qxkzwvnpabcd.supabase.co:5432/postgres"),
        ("env.REDIS_URL", "redis://:p4ss@cache:6379/0"),
        ("env.MONGO_URL", "mongodb" + "+srv://root:Lamp42@cluster0.mongodb.net/app?retryWrites=true"),
        ("env.BROKER", "amqp://guest:guest@rabbit:5672//"),
        ("env.SMTP_URL", "smtps://mail%40acme.example:Lamp42@smtp.example.com:465"),
        ("nodes[0].config.connection", "mysql+pymysql://root:toor@127.0.0.1/app"),
        ("nodes[0].config.connection", "host=db.internal user=app password=s3cret dbname=app"),
        ("nodes[0].config.connection", "jdbc:postgresql://db/app?user=app&password=s3cret"),
        (
            "nodes[0].config.connection",
            "Server=tcp:db,1433;Database=app;User ID=sa;Password=P4ssw0rd!;Encrypt=True;",
        ),
        (
            "nodes[0].config.connection",
            f"DefaultEndpointsProtocol=https;AccountName=acme;AccountKey={_drawn(_B64, 86, 'azure')}==",
        ),
        ("log.message", "connection to postgresql://app:s3cret@db:5432/app failed: timeout"),
    ],
    "secret in a script": [
        (
            "jobs.build.steps[0].run",
            f'curl -H "Authorization: Bearer {_drawn(_URL64, 40, "curl")}" https://api.example.com/',
        ),
        (
            "jobs.build.steps[0].run",
            f"curl -H 'PRIVATE-TOKEN: {_GITLAB}' https://gitlab.example.com/api/v4/projects",
        ),
        ("jobs.build.steps[0].run", "curl -u admin:Lamp42! https://nexus.example.com/"),
        ("jobs.build.steps[0].run", f"export AWS_SECRET_ACCESS_KEY={_AWS_SECRET}\naws s3 sync . s3://acme\n"),
        ("jobs.build.steps[0].run", "PGPASSWORD=s3cret psql -h db -U app -c 'select 1'"),
        ("jobs.build.steps[0].run", f"npm config set //npm.example/:_authToken={_NPM}"),
        ("jobs.build.steps[0].run", f"docker login -u acme --password {_WORD} registry.example.com"),
        ("jobs.build.steps[0].run", f"twine upload -u __token__ -p {_PYPI} dist/*"),
        ("nodes[2].parameters.jsCode", f"const token = '{_drawn(_ALNUM, 36, 'js')}';\nreturn items;"),
        ("nodes[2].parameters.jsCode", f'const apiKey = "{_HEX32}";\nreturn [{{json: {{}}}}];'),
        ("nodes[2].parameters.jsCode", f"headers: {{ Authorization: 'Bearer {_OPENAI}' }}"),
        ("nodes[2].parameters.functionCode", f"items[0].json.auth = 'Bearer {_USER_JWT}';"),
        ("nodes[2].parameters.jsonBody", '{"username": "ada", "password": "lovelace"}'),
        ("nodes[2].parameters.jsonBody", f'{{"client_id": "orders", "client_secret": "{_HEX40}"}}'),
        ("spec.templates[0].script.source", f"import os\nSECRET_KEY = '{_drawn(_ALNUM, 50, 'django')}'\n"),
        ("spec.templates[0].script.source", f"requests.get(url, headers={{'X-Api-Key': '{_HEX32}'}})"),
    ],
    "base64 secret": [
        ("manifests[kind=Secret].data.password", _base64("s3cret")),
        ("manifests[kind=Secret].data.username", _base64("orders-admin")),
        ("manifests[kind=Secret].data.DATABASE_URL", _base64("postgres://app:s3cret@db/app")),
        ("manifests[kind=Secret].data.tls.key", _base64(_RSA)),
        ("manifests[kind=Secret].stringData.api-key", "orders-admin-7"),
        ("manifests[kind=Secret].data..dockerconfigjson", _base64('{"auths":{"r":{"auth":"Y2k6bGFtcA=="}}}')),
        ("config.kubeconfig.users[0].user.client-key-data", _base64(_PKCS8)),
        ("nodes[1].config.key", _base64(_RSA)),
    ],
    "high entropy": [
        ("nodes[0].config.value", _drawn(_ALNUM, 40, "entropy 1")),
        ("nodes[0].config.value", _drawn(_ALNUM, 64, "entropy 2")),
        ("nodes[0].config.value", _drawn(_URL64, 43, "entropy 3")),
        ("nodes[0].config.value", _drawn(_B64, 43, "entropy 4") + "="),
        ("nodes[0].config.value", _drawn(_B64, 86, "entropy 5") + "=="),
        ("nodes[0].config.value", _AWS_SECRET),
        ("nodes[0].config.extra", "prefix " + _drawn(_ALNUM, 48, "entropy 6") + " suffix"),
        ("nodes[0].config.value", _drawn(_ALNUM, 32, "entropy 7")),
        ("log.fields.detail", _drawn(_URL64, 64, "entropy 8")),
        ("event.data.note", _drawn(_ALNUM, 56, "entropy 9")),
    ],
    "log, event or summary": [
        ("log.message", f"unknown access token {_GST_CI}"),
        ("log.message", f"POST https://api.example.com/ with Authorization: Bearer {_USER_JWT} answered 401"),
        ("log.exception", f"psycopg.OperationalError: postgresql://app:{_WORD}@db/app: timeout"),
        ("log.message", f"push to https://oauth2:{_GITLAB}@gitlab.example.com/acme/x.git was refused"),
        ("log.message", "password=hunter2 is too short"),
        ("event.data.summary", f"set value of Notify to {_SLACK_HOOK}"),
        ("event.data.summary", f"Authorization of Call API: Bearer {_STRIPE} → Bearer {_OPENAI}"),
        ("event.data.message", f"Rotate {_GITHUB} before Friday"),
        ("event.data.author.note", f"my key is {_AWS_ID}"),
        ("summary", f"value: {_NPM} → {_drawn(_ALNUM, 40, 'summary')}"),
        ("summary", f"api_key of Charge: {_HEX32} → {_HEX40[:32]}"),
        ("push.output", f"env.DATABASE_URL: postgres://app:{_WORD}@db/app"),
    ],
}

_UUIDS = [
    "0f2a9c1e-7b4d-4e8a-9f36-5d1c2b3a4e5f",
    "6BA7B810-9DAD-11D1-80B4-00C04FD430C8",
    "urn:uuid:6ba7b810-9dad-11d1-80b4-00c04fd430c8",
]
_PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    "AAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
_PUBLIC_KEY = (
    "-----BEGIN PUBLIC KEY-----\n"
    "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n"
    "-----END PUBLIC KEY-----\n"
)

_HARMLESS: dict[str, list[tuple[str, str]]] = {
    "template": [
        ("nodes[1].config.token", "{{ secret('PROD') }}"),
        ("nodes[1].config.password", "{{ secret('TEST_DB') }}"),
        ("nodes[1].config.headers.Authorization", "Bearer {{ secret('API_TOKEN') }}"),
        ("nodes[1].config.headers.Authorization", "Bearer {{secrets.API_TOKEN}}"),
        ("nodes[1].config.headers.X-Auth-Token", "{{ vars.token }}"),
        ("nodes[1].config.api_key", "{{env.API_KEY}}"),
        ("nodes[1].config.client_secret", "{{ $secrets.oauth.client_secret }}"),
        ("nodes[2].parameters.token", "={{$json.token}}"),
        ("nodes[2].parameters.token", '={{ $node["Get Access Token"].json["access_token"] }}'),
        ("nodes[2].parameters.password", "={{ $('Read Vault').item.json.password }}"),
        (
            "nodes[2].parameters.headerParameters.parameters[name=Authorization].value",
            "=Bearer {{ $json.access_token }}",
        ),
        ("nodes[2].parameters.headerParameters.parameters[name=X-Api-Key].value", "={{ $env.API_KEY }}"),
        ("nodes[2].parameters.apiKey", "={{ $credentials.apiKey }}"),
        ("nodes[2].parameters.url", "=https://api.example.com/?token={{ $json.token }}"),
        ("jobs.build.env.GITHUB_TOKEN", "${{ secrets.GITHUB_TOKEN }}"),
        ("jobs.build.env.NPM_TOKEN", "${{ secrets.NPM_TOKEN || '' }}"),
        ("jobs.build.env.API_KEY", "${{secrets.API_KEY}}"),
        ("jobs.build.steps[1].with.token", "${{ github.token }}"),
        ("jobs.build.steps[1].with.password", "${{ steps.login.outputs.password }}"),
        ("jobs.build.steps[1].with.github-token", "${{ inputs.token }}"),
        (
            "jobs.build.steps[1].run",
            'curl -H "Authorization: Bearer ${{ secrets.DEPLOY }}" https://api.example.com/',
        ),
        ("jobs.build.steps[1].run", 'curl -H "Authorization: Bearer $TOKEN" https://api.example.com/'),
        ("jobs.build.steps[1].run", "echo $CR_PAT | docker login ghcr.io -u acme --password-stdin"),
        ("jobs.build.steps[1].run", 'docker login -u "$USER" -p "$PASSWORD" registry.example.com'),
        ("jobs.build.steps[1].run", "export AWS_SECRET_ACCESS_KEY=$(vault read -field=key aws)"),
        (
            "jobs.build.steps[1].run",
            "git clone https://x-access-token:${GITHUB_TOKEN}@github.com/acme/orders",
        ),
        ("services.db.environment.POSTGRES_PASSWORD", "${POSTGRES_PASSWORD}"),
        ("services.db.environment.POSTGRES_PASSWORD", "${POSTGRES_PASSWORD:?missing}"),
        ("services.db.environment.POSTGRES_PASSWORD", "$POSTGRES_PASSWORD"),
        ("env.DATABASE_URL", "postgres://app:${DB_PASSWORD}@db/app"),
        ("env.DATABASE_URL", "postgres://{{ vars.user }}:{{ secret('DB') }}@db/app"),
        ("spec.templates[0].inputs.token", "{{inputs.parameters.token}}"),
        ("spec.templates[0].container.env[name=TOKEN].value", "{{workflow.parameters.token}}"),
        ("spec.templates[0].container.env[name=PASSWORD].value", "$(DB_PASSWORD)"),
        ("States.Login.Parameters.token.$", "$.token"),
        ("States.Login.Parameters.Password.$", "$.credentials.password"),
        ("States.Login.Parameters.ApiKey.$", "$$.Execution.Input.apiKey"),
        ("States.Login.Parameters.token", "{% $states.input.token %}"),
        (
            "States.Login.Parameters.SecretId",
            "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/db-AbCdEf",
        ),
        ("config.password", "<%= ENV['PASSWORD'] %>"),
        ("config.password", "!vault secret/data/db#password"),
        ("config.password", "vault:secret/data/db#password"),
        ("config.password", "op://prod/db/password"),
        ("config.token", "%TOKEN%"),
        ("config.token", "@{variables('token')}"),
        ("config.token", "@{body('Get_token')?['access_token']}"),
        ("config.token", "file:///run/secrets/token"),
        ("config.secret", "secret://orders/stripe"),
        ("config.api_key", "env:API_KEY"),
        ("config.api_key", "<your API key>"),
        ("config.password", "********"),
        ("config.password", ""),
        ("log.message", "{{ secret('TEST') }} → {{ secret('PROD') }}"),
        ("summary", "token of Charge: {{ secret('TEST') }} → {{ secret('PROD') }}"),
    ],
    "reference": [
        ("env[0].valueFrom.secretKeyRef.name", "orders-db"),
        ("env[0].valueFrom.secretKeyRef.key", "password"),
        ("env[name=PASSWORD].valueFrom.secretKeyRef.name", "postgres-credentials-production"),
        ("envFrom[0].secretRef.name", "orders-secrets"),
        ("spec.imagePullSecrets[0].name", "registry-acme"),
        ("spec.volumes[0].secret.secretName", "orders-tls"),
        ("spec.tls[0].secretName", "orders-example-com-tls"),
        ("spec.artifacts.s3.accessKeySecret.name", "minio-credentials"),
        ("spec.artifacts.s3.accessKeySecret.key", "accesskey"),
        ("spec.artifacts.s3.secretKeySecret.key", "secretkey"),
        ("nodes[3].credentials.slackApi.id", "Xq3kP0vLm9Tz2RbA"),
        ("nodes[3].credentials.slackApi.name", "Slack production token"),
        ("nodes[3].credentials.httpHeaderAuth.id", "17"),
        ("nodes[3].credentials.httpHeaderAuth.name", "Header Auth account 2"),
        ("nodes[3].credentials.googleSheetsOAuth2Api.id", "aB3dE5fG7hI9jK1L"),
        ("nodes[3].credential_id", "cred-42"),
        ("nodes[3].credentialId", "cred_production_stripe"),
        ("nodes[3].webhookId", _UUIDS[0]),
        ("on.workflow_call.secrets.token.description", "Token that may push packages"),
        ("on.workflow_call.secrets.token.required", "true"),
        ("jobs.deploy.secrets", "inherit"),
        ("secrets[0]", "STRIPE_KEY"),
        ("config.secret_name", "prod/stripe"),
        ("config.secretArn", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/db-AbCdEf"),
        ("config.passwordFile", "/run/secrets/db_password"),
        ("config.keyId", "stripe-2024"),
        ("config.kms_key_id", "arn:aws:kms:eu-west-1:123456789012:key/0f2a9c1e-7b4d-4e8a-9f36-5d1c2b3a4e5f"),
        ("config.key", "orders"),
        ("config.primaryKey", "order_id"),
        ("config.primary_key", "customer_id"),
        ("config.partition_key", "tenant"),
        ("config.foreignKey", "orders.customer_id"),
        ("config.cache.key", "npm-linux-${{ hashFiles('**/package-lock.json') }}"),
        ("config.sortKey", "created_at"),
        ("config.public_key", _PUBLIC_KEY),
    ],
    "word of a secret in a key": [
        ("nodes[4].config.maxTokens", "4096"),
        ("nodes[4].config.max_tokens", "1024"),
        ("nodes[4].parameters.options.maxTokensToSample", "256"),
        ("nodes[4].config.tokenUrl", "https://login.example.com/oauth2/token"),
        ("nodes[4].config.token_url", "https://oauth2.googleapis.com/token"),
        ("nodes[4].config.accessTokenUrl", "https://www.linkedin.com/oauth/v2/accessToken"),
        ("nodes[4].config.token_endpoint", "/oauth/token"),
        ("nodes[4].config.tokenType", "Bearer"),
        ("nodes[4].config.token_type", "bearer"),
        ("nodes[4].config.tokenField", "access_token"),
        ("nodes[4].config.token_count", "18"),
        ("nodes[4].config.tokenizer", "cl100k_base"),
        ("nodes[4].config.expires_token_in", "3600"),
        ("nodes[4].config.passwordPolicy", "strong"),
        ("nodes[4].config.password_length", "16"),
        ("nodes[4].config.passwordField", "#login_password"),
        ("nodes[4].config.require_password", "true"),
        ("nodes[4].config.resetPasswordUrl", "https://app.example.com/reset"),
        ("nodes[4].config.authentication", "headerAuth"),
        ("nodes[4].config.auth", "oauth2"),
        ("nodes[4].config.authType", "basic"),
        ("nodes[4].config.authorizationUrl", "https://login.example.com/oauth2/authorize"),
        ("nodes[4].config.authentication", "predefinedCredentialType"),
        ("nodes[4].config.nodeCredentialType", "googleSheetsOAuth2Api"),
        ("nodes[4].config.secretType", "Opaque"),
        ("nodes[4].config.bypass", "true"),
        ("nodes[4].config.passthrough", "false"),
        ("nodes[4].config.compass", "north"),
        ("nodes[4].config.author", "Ada Lovelace"),
        ("nodes[4].config.authors[0]", "ada@example.com"),
        ("nodes[4].config.keyboard", "en-US"),
        ("nodes[4].config.keywords[0]", "billing"),
        ("nodes[4].config.monkey", "true"),
        ("jobs.publish.permissions.id-token", "write"),
        ("jobs.publish.permissions.id-token", "none"),
        ("jobs.build.steps[0].with.persist-credentials", "false"),
        ("jobs.build.steps[0].with.cache-key", "v2-deps"),
        ("jobs.build.steps[0].uses", "actions/create-github-app-token@v1"),
        ("jobs.token-check.runs-on", "ubuntu-latest"),
        ("jobs.password-reset.name", "Reset passwords"),
        ("connections.Get Access Token.main[0][0].node", "Call API"),
        ("connections.Rotate Secret.main[0][0].type", "main"),
        ("nodes[5].name", "Get Access Token"),
        ("nodes[5].name", "Rotate API key"),
        ("nodes[5].name", "Verify password"),
        ("nodes[5].id", "get-access-token"),
        ("nodes[5].type", "n8n-nodes-base.hashiCorpVault"),
        ("edges[0].to", "store_secret"),
        ("steps[Get Access Token].target", "https://api.example.com/v2/orders"),
        ("states.FetchToken.next", "StoreToken"),
        ("States.GetSecretValue.Resource", "arn:aws:states:::aws-sdk:secretsmanager:getSecretValue"),
        ("log.fields.event", "token.created"),
        ("log.fields.code", "invalid_token"),
        ("event.type", "access_token.revoked"),
        ("summary", "Get Access Token: target v1 → v2"),
        ("summary", "id-token: none → write in publish"),
    ],
    "identifier": [
        ("nodes[0].id", _UUIDS[0]),
        ("nodes[0].id", _UUIDS[1]),
        ("nodes[0].config.ref", _UUIDS[2]),
        ("log.fields.request_id", "01HF7Z8YQ2V5M3K9XJ4W6T0B1C"),
        ("log.fields.trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("log.fields.traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("event.data.commit", "9b571e5c0f4a1d2e3b6c7d8e9fa0b1c2d3e4f506"),
        ("event.data.parent", "1f7ec0d9a8b7c6d5e4f30213243546576879808a"),
        ("log.message", "moved draft to 9b571e5c0f4a1d2e3b6c7d8e9fa0b1c2d3e4f506"),
        ("summary", "9b571e5..c7f5b0e"),
        ("jobs.build.steps[0].uses", "actions/checkout@b4ffde65f46336ab88eb53be808477a3936bae11"),
        ("jobs.build.steps[1].uses", "docker/login-action@343f7c4344506bcbf9b4de18042ae17996df046d # v3.0.0"),
        ("event.data.digest", "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("event.data.sha256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("config.md5", "d41d8cd98f00b204e9800998ecf8427e"),
        ("config.etag", 'W/"33a64df551425fcc55e4d42a148795d9f25f89d4"'),
        (
            "container.image",
            "ghcr.io/acme/orders@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        ),
        ("container.image", "registry.example.com:5000/acme/orders:2024.11.27-rc1"),
        ("container.image", "postgres:15.6-alpine3.19"),
        (
            "config.integrity",
            "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==",
        ),
        ("config.spreadsheetId", "1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms"),
        ("config.accountId", "123456789012"),
        ("config.project", "qxkzwvnpabcdefghijkl"),
        ("config.arn", "arn:aws:states:eu-west-1:123456789012:stateMachine:orders"),
        ("config.client_id", "orders-service"),
        ("config.clientId", "123456789012-abcdefghijklmnop.apps.googleusercontent.com"),
        ("config.chat", "-1001234567890"),
        ("config.channel", "C024BE91L"),
        ("config.objectId", "507f1f77bcf86cd799439011"),
        ("instanceId", "8c8c5237b8e37b006a7adce87f4369350c58e41f3ca9de16196d3197f69eabcd"),
    ],
    "date, version, slug or cron": [
        ("created_at", "2024-11-27T05:46:40Z"),
        ("created_at", "2024-11-27T05:46:40.123456+00:00"),
        ("config.from", "2024-11-27"),
        ("log.asctime", "2024-11-27 05:46:40,123"),
        ("config.timeout", "PT1H30M"),
        ("config.interval", "P1Y2M10DT2H30M"),
        ("config.timestamp", "1732686400123"),
        ("slug", "order-sync"),
        ("slug", "customer-onboarding-reminder-emails-for-europe-2024"),
        ("workflow", "password-reset-notifications"),
        ("tag", "order-sync/v12"),
        ("ref", "refs/heads/drafts/order-sync/ada/rotate-api-key"),
        ("schedule[0].cron", "0 5 * * 1-5"),
        ("schedule[0].cron", "*/15 2,14 1 JAN-DEC ?"),
        ("config.timezone", "America/Argentina/Buenos_Aires"),
        ("dependencies.react", "^18.2.0"),
        ("dependencies.orders", "1.0.0-beta.11+exp.sha.5114f85"),
        ("dependencies.flask", "flask>=3.0,<4 ; python_version >= '3.11'"),
        ("config.go", "v0.0.0-20231127054640-9b571e5c0f4a"),
        ("config.locale", "zh-Hant-TW"),
    ],
    "URL": [
        ("nodes[0].config.url", "https://api.example.com/v1/orders?page=2&per_page=100&sort=-created_at"),
        ("nodes[0].config.url", "https://login.microsoftonline.com/common/oauth2/v2.0/token"),
        ("nodes[0].config.url", "https://api.github.com/repos/acme/orders/actions/secrets/public-key"),
        (
            "nodes[0].config.url",
            "https://docs.google.com/spreadsheets/d/1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms/edit#gid=0",
        ),
        ("nodes[0].config.url", "https://example.com/reset-password/how-to-choose-a-strong-password"),
        ("nodes[0].config.url", f"https://app.example.com/workflows/{_UUIDS[0]}/edit"),
        (
            "nodes[0].config.url",
            "https://github.com/acme/orders/commit/9b571e5c0f4a1d2e3b6c7d8e9fa0b1c2d3e4f506",
        ),
        ("nodes[0].config.url", "git@github.com:acme/orders.git"),
        ("nodes[0].config.url", "ssh://git@git.example.com:2222/acme/orders.git"),
        ("nodes[0].config.url", "https://ci@git.example.com/acme/orders.git"),
        ("nodes[0].config.url", "postgresql://db.internal:5432/app?sslmode=verify-full"),
        ("nodes[0].config.url", "redis://cache:6379/0"),
        ("nodes[0].config.url", "s3://acme-orders/exports/2024/11/27/part-0000.parquet"),
        ("nodes[0].config.url", "https://example.com/search?q=access+token&lang=en"),
        ("nodes[0].config.url", "https://example.com/list?next_page_token=2&key=name"),
        ("nodes[0].config.url", "mailto:ada@example.com?subject=Your%20password"),
        ("nodes[0].config.url", "https://cdn.jsdelivr.net/npm/bootstrap@5.3.2/dist/css/bootstrap.min.css"),
        ("nodes[0].config.url", "http://localhost:5678/webhook-test/0f2a9c1e-7b4d-4e8a-9f36-5d1c2b3a4e5f"),
        (
            "nodes[0].config.url",
            "https://example.com/%E6%97%A5%E6%9C%AC%E8%AA%9E/%E3%83%9A%E3%83%BC%E3%82%B8",
        ),
    ],
    "text": [
        (
            "description",
            "Fetches an access token, then stores the new secret in the vault and tells the owner by mail.",
        ),
        (
            "description",
            "The password must have at least twelve characters, one digit and one punctuation mark.",
        ),
        ("description", "Bearer of bad news: this workflow is deprecated, use order-sync instead."),
        (
            "description",
            "Basic authentication is used here; see the token page of the handbook for how to rotate keys.",
        ),
        ("description", "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"),
        ("description", "このワークフローは毎朝の注文を同期します。"),
        ("description", "Каждое утро синхронизирует заказы и присылает отчёт."),
        ("description", "pneumonoultramicroscopicsilicovolcanoconiosis"),
        ("description", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("description", "================================================"),
        (
            "nodes[0].config.prompt",
            "You are a helpful assistant. Summarise the order below in three sentences, token by token.",
        ),
        ("nodes[0].config.text", ":white_check_mark: *Deployed* orders to production"),
        ("nodes[0].config.subject", "Reset your password"),
        ("nodes[0].notes", "TODO: ask Ada for the API key"),
        ("log.message", "access token expired"),
        ("log.message", "invalid access token: expected gst_ and 43 characters"),
        ("log.message", "authorization failed: the role reader cannot publish"),
        ("log.message", "signature does not match the secret of source 7"),
        ("log.message", "password authentication failed for user app"),
        ("log.message", "GET /api/v1/projects/acme/workflows/order-sync/versions?limit=50 200 12 ms"),
        ("log.message", "worker 4711 stopped after 30.2 s; 18 events wait"),
        ("log.exception", 'File "/app/service/access.py", line 42, in check_token'),
        ("event.data.message", "Use the new token endpoint\n\nSigned-off-by: Ada Lovelace <ada@example.com>"),
        ("event.data.summary", "checkout@v2 → v3 in build"),
        ("event.data.summary", "maxTokens of Ask model: 1024 → 4096"),
        ("push.output", "order-sync v4 is active; 2 changes: url of Call API, retries of Charge"),
        ("config.lorem", "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor"),
    ],
    "base64 of text or image": [
        ("config.body", _base64("Hello, world!")),
        ("config.body", _base64("order created")),
        ("config.body", _base64('{"ok":true}')),
        ("config.body", _base64("The quick brown fox jumps")),
        ("config.userData", _base64("#!/bin/sh\necho hi\n")),
        ("config.logo", _PNG),
        ("config.ca", _pem("CERTIFICATE", "certificate", 12)),
        (
            "config.publicKey",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl github.com",
        ),
    ],
    "code, query or pattern": [
        ("config.css", ".token-list > .item:hover { color: #1f2933; background: rgba(15, 98, 254, 0.12); }"),
        ("config.css", "linear-gradient(135deg, #667eea 0%, #764ba2 100%)"),
        ("config.color", "#9b571e5c"),
        (
            "config.query",
            "SELECT id, token_count FROM usage WHERE created_at > now() - interval '1 day' ORDER BY 2 DESC",
        ),
        ("config.query", "UPDATE users SET password_hash = crypt($1, gen_salt('bf')) WHERE id = $2"),
        ("config.query", "CREATE ROLE app LOGIN PASSWORD :'app_password'"),
        ("config.query", "{ viewer { repositories(first: 10) { nodes { nameWithOwner } } } }"),
        ("config.jq", '.items[] | select(.metadata.labels.app == "orders") | .metadata.name'),
        ("config.xpath", "//div[@class='token']/span[2]/text()"),
        ("config.pattern", r"^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}$"),
        ("config.pattern", r"(?i)bearer\s+[a-z0-9._~+/-]+=*"),
        ("config.pattern", r"^gh[pousr]_[A-Za-z0-9]{36}$"),
        ("config.pattern", r"^(?=.*[a-z])(?=.*[A-Z])(?=.*\d)[A-Za-z\d]{12,}$"),
        (
            "config.path",
            "/var/lib/gitstore/projects/acme.git/objects/9b/571e5c0f4a1d2e3b6c7d8e9fa0b1c2d3e4f506",
        ),
        ("config.path", "src/main/java/com/example/orders/security/PasswordResetTokenRepository.java"),
        ("config.path", r"C:\Users\Ada\AppData\Roaming\npm\node_modules\orders\package.json"),
        ("config.path", "./node_modules/.bin/eslint"),
        ("config.class", "com.example.orders.security.OAuth2AuthorizedClientManagerConfiguration"),
        ("config.handler", "AbstractSingletonProxyFactoryBeanGeneratorStrategyVisitor"),
        ("config.operation", "getOrCreateAccessTokenForServiceAccount"),
        ("config.constant", "GITSTORE_DATABASE_POOL_MAXIMUM_CONNECTIONS"),
        ("config.event", "customer.subscription.trial_will_end"),
        ("nodes[2].parameters.jsCode", "const token = items[0].json.token;\nreturn [{ json: { token } }];"),
        ("nodes[2].parameters.jsCode", "const password = process.env.DB_PASSWORD;\nreturn items;"),
        ("nodes[2].parameters.jsCode", "const apiKey = $env['API_KEY'] ?? await getSecret('api-key');"),
        ("nodes[2].parameters.jsCode", "for (const key of Object.keys(items[0].json)) { seen.add(key); }"),
        (
            "nodes[2].parameters.jsCode",
            "if (req.headers.authorization !== `Bearer ${expected}`) throw new Error('401');",
        ),
        ("spec.templates[0].script.source", "token = os.environ['TOKEN']\nprint(len(token))\n"),
        (
            "spec.templates[0].script.source",
            "parser.add_argument('--password', required=True, help='of the database')",
        ),
        ("spec.templates[0].script.source", "password = getpass.getpass()\nclient.login(user, password)\n"),
        (
            "jobs.build.steps[0].run",
            "npm ci && npm run build -- --mode=production --outDir=dist/orders-2024.11.27",
        ),
        ("jobs.build.steps[0].run", "curl -fsSL https://example.com/install.sh | sh -s -- --version 1.2.3"),
        ("jobs.build.steps[0].run", "python -m pytest -k 'not password and not token' --maxfail=1"),
        (
            "jobs.build.steps[0].run",
            "kubectl create secret generic orders --from-env-file=orders.env --dry-run=client -o yaml",
        ),
        ("jobs.build.if", "github.event_name == 'push' && startsWith(github.ref, 'refs/tags/')"),
        ("config.accept", "application/vnd.github.v3+json;q=0.9, text/html, */*;q=0.1"),
        (
            "config.agent",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0",
        ),
        ("config.csp", "default-src 'none'; script-src 'self'; style-src 'self'; frame-ancestors 'none'"),
        ("config.ip", "2001:0db8:85a3:0000:0000:8a2e:0370:7334"),
        ("config.mac", "00:1A:2B:3C:4D:5E"),
    ],
}


def _cases(table: dict[str, list[tuple[str, str]]]) -> list[Case]:
    return [Case(where, value, kind) for kind, rows in table.items() for where, value in rows]


SECRETS = _cases(_SECRETS)
HARMLESS = _cases(_HARMLESS)
