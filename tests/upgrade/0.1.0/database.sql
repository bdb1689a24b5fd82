--
-- PostgreSQL database dump
--


-- Dumped from database version 18.4
-- Dumped by pg_dump version 18.4

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: gitstore; Type: SCHEMA; Schema: -; Owner: gitstore
--

CREATE SCHEMA gitstore;


ALTER SCHEMA gitstore OWNER TO gitstore;

--
-- Name: authenticate(bytea); Type: FUNCTION; Schema: gitstore; Owner: gitstore_lookup
--

CREATE FUNCTION gitstore.authenticate(secret bytea) RETURNS TABLE(id uuid, name text, role text, project_id uuid, project_slug text, project_name text, project_owner uuid, project_rules text, project_created_at timestamp with time zone)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
    update gitstore.access_tokens set last_used_at = now() where id = (
        select id from gitstore.access_tokens
        where sha256 = secret and (last_used_at is null or last_used_at < now() - interval '1 minute')
        for update skip locked
    );
    return query
        select tokens.id, tokens.name, tokens.role, projects.id, projects.slug, projects.name, projects.owner,
            projects.rules, projects.created_at
        from gitstore.access_tokens as tokens join gitstore.projects on projects.id = tokens.project_id
        where tokens.sha256 = secret
            and tokens.revoked_at is null and (tokens.expires_at is null or tokens.expires_at > now());
end
$$;


ALTER FUNCTION gitstore.authenticate(secret bytea) OWNER TO gitstore_lookup;

--
-- Name: owned_projects(); Type: FUNCTION; Schema: gitstore; Owner: gitstore_lookup
--

CREATE FUNCTION gitstore.owned_projects() RETURNS uuid[]
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    me constant uuid := gitstore.subject();
begin
    return coalesce(array_agg(owned.id), '{}') from (
        select projects.id from gitstore.projects where owner = me
        union
        select project_id from gitstore.members where user_id = me and role = 'owner'
        union
        select project_id from gitstore.access_tokens
        where access_tokens.id = me and role = 'owner'
            and revoked_at is null and (expires_at is null or expires_at > now())
    ) as owned (id);
end
$$;


ALTER FUNCTION gitstore.owned_projects() OWNER TO gitstore_lookup;

--
-- Name: refuse_change(); Type: FUNCTION; Schema: gitstore; Owner: gitstore
--

CREATE FUNCTION gitstore.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if tg_op <> 'TRUNCATE' and current_setting('gitstore.upkeep', true) = 'on'
        and current_user = (select pg_get_userbyid(relowner) from pg_class where oid = tg_relid) then
        return case tg_op when 'DELETE' then old else new end;
    end if;
    raise exception '% of %: what is recorded there does not change', lower(tg_op), tg_table_name
        using errcode = 'restrict_violation', constraint = 'immutable', table = tg_table_name;
end
$$;


ALTER FUNCTION gitstore.refuse_change() OWNER TO gitstore;

--
-- Name: subject(); Type: FUNCTION; Schema: gitstore; Owner: gitstore
--

CREATE FUNCTION gitstore.subject() RETURNS uuid
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    sub constant text := nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub';
begin
    return case when sub ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then sub::uuid end;
end
$_$;


ALTER FUNCTION gitstore.subject() OWNER TO gitstore;

--
-- Name: visible_projects(); Type: FUNCTION; Schema: gitstore; Owner: gitstore_lookup
--

CREATE FUNCTION gitstore.visible_projects() RETURNS uuid[]
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    me constant uuid := gitstore.subject();
begin
    return coalesce(array_agg(visible.id), '{}') from (
        select projects.id from gitstore.projects where owner = me
        union
        select project_id from gitstore.members where user_id = me
        union
        select project_id from gitstore.access_tokens
        where access_tokens.id = me
            and revoked_at is null and (expires_at is null or expires_at > now())
    ) as visible (id);
end
$$;


ALTER FUNCTION gitstore.visible_projects() OWNER TO gitstore_lookup;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: access_tokens; Type: TABLE; Schema: gitstore; Owner: gitstore
--

CREATE TABLE gitstore.access_tokens (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    project_id uuid NOT NULL,
    name text NOT NULL,
    role text NOT NULL,
    sha256 bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    last_used_at timestamp with time zone,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    CONSTRAINT access_tokens_role_check CHECK ((role = ANY (ARRAY['viewer'::text, 'editor'::text, 'publisher'::text, 'owner'::text]))),
    CONSTRAINT access_tokens_sha256_check CHECK ((octet_length(sha256) = 32))
);

ALTER TABLE ONLY gitstore.access_tokens FORCE ROW LEVEL SECURITY;


ALTER TABLE gitstore.access_tokens OWNER TO gitstore;

--
-- Name: audit_log; Type: TABLE; Schema: gitstore; Owner: gitstore
--

CREATE TABLE gitstore.audit_log (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    project_id uuid NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    actor_id text NOT NULL,
    actor_name text NOT NULL,
    door text NOT NULL,
    action text NOT NULL,
    object text NOT NULL,
    remote text,
    request_id text,
    details jsonb DEFAULT '{}'::jsonb NOT NULL
);

ALTER TABLE ONLY gitstore.audit_log FORCE ROW LEVEL SECURITY;


ALTER TABLE gitstore.audit_log OWNER TO gitstore;

--
-- Name: deliveries; Type: TABLE; Schema: gitstore; Owner: gitstore
--

CREATE TABLE gitstore.deliveries (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    project_id uuid NOT NULL,
    subscription_id uuid NOT NULL,
    event_id uuid NOT NULL,
    type text NOT NULL,
    data jsonb,
    state text DEFAULT 'pending'::text NOT NULL,
    due_at timestamp with time zone,
    tries integer DEFAULT 0 NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    last_status integer,
    last_error text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    ended_at timestamp with time zone,
    claimed boolean DEFAULT false NOT NULL,
    crashes integer DEFAULT 0 NOT NULL,
    CONSTRAINT deliveries_ended_check CHECK ((((state = 'pending'::text) = (ended_at IS NULL)) AND ((state = 'pending'::text) OR (due_at IS NULL)))),
    CONSTRAINT deliveries_state_check CHECK ((state = ANY (ARRAY['pending'::text, 'succeeded'::text, 'failed'::text, 'poison'::text])))
);

ALTER TABLE ONLY gitstore.deliveries FORCE ROW LEVEL SECURITY;


ALTER TABLE gitstore.deliveries OWNER TO gitstore;

--
-- Name: delivery_attempts; Type: TABLE; Schema: gitstore; Owner: gitstore
--

CREATE TABLE gitstore.delivery_attempts (
    delivery_id uuid NOT NULL,
    number integer NOT NULL,
    project_id uuid NOT NULL,
    url text NOT NULL,
    started_at timestamp with time zone NOT NULL,
    duration_ms integer NOT NULL,
    status integer,
    error text,
    response text
);

ALTER TABLE ONLY gitstore.delivery_attempts FORCE ROW LEVEL SECURITY;


ALTER TABLE gitstore.delivery_attempts OWNER TO gitstore;

--
-- Name: divergences; Type: TABLE; Schema: gitstore; Owner: gitstore
--

CREATE TABLE gitstore.divergences (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    source_id uuid NOT NULL,
    project_id uuid NOT NULL,
    ref text NOT NULL COLLATE pg_catalog."C",
    slug text NOT NULL COLLATE pg_catalog."C",
    version_number integer,
    ours text,
    theirs text,
    code text NOT NULL,
    reason text NOT NULL,
    first_seen_at timestamp with time zone DEFAULT now() NOT NULL,
    last_seen_at timestamp with time zone DEFAULT now() NOT NULL,
    decision text,
    decided_by text,
    resolved_at timestamp with time zone,
    resolution text,
    CONSTRAINT divergences_check CHECK (((resolved_at IS NULL) = (resolution IS NULL))),
    CONSTRAINT divergences_decision_check CHECK ((decision = 'theirs'::text)),
    CONSTRAINT divergences_resolution_check CHECK ((resolution = ANY (ARRAY['theirs'::text, 'ours'::text, 'gone'::text])))
);

ALTER TABLE ONLY gitstore.divergences FORCE ROW LEVEL SECURITY;


ALTER TABLE gitstore.divergences OWNER TO gitstore;

--
-- Name: event_queue; Type: TABLE; Schema: gitstore; Owner: gitstore
--

CREATE TABLE gitstore.event_queue (
    event_id uuid NOT NULL
);

ALTER TABLE ONLY gitstore.event_queue FORCE ROW LEVEL SECURITY;


ALTER TABLE gitstore.event_queue OWNER TO gitstore;

--
-- Name: events; Type: TABLE; Schema: gitstore; Owner: gitstore
--

CREATE TABLE gitstore.events (
    id uuid NOT NULL,
    project_id uuid NOT NULL,
    workflow_id uuid,
    type text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    recorded_at timestamp with time zone DEFAULT now() NOT NULL,
    data jsonb NOT NULL
);

ALTER TABLE ONLY gitstore.events FORCE ROW LEVEL SECURITY;


ALTER TABLE gitstore.events OWNER TO gitstore;

--
-- Name: git_objects; Type: TABLE; Schema: gitstore; Owner: gitstore
--

CREATE TABLE gitstore.git_objects (
    project_id uuid NOT NULL,
    oid text NOT NULL COLLATE pg_catalog."C",
    kind text NOT NULL,
    bytes bytea,
    CONSTRAINT git_objects_bytes_check CHECK ((octet_length(bytes) <= 1048576)),
    CONSTRAINT git_objects_kind_check CHECK ((kind = ANY (ARRAY['commit'::text, 'tree'::text, 'blob'::text, 'tag'::text]))),
    CONSTRAINT git_objects_oid_check CHECK ((oid ~ '^[0-9a-f]{40}$'::text))
);

ALTER TABLE ONLY gitstore.git_objects FORCE ROW LEVEL SECURITY;


ALTER TABLE gitstore.git_objects OWNER TO gitstore;

--
-- Name: members; Type: TABLE; Schema: gitstore; Owner: gitstore
--

CREATE TABLE gitstore.members (
    project_id uuid NOT NULL,
    user_id uuid NOT NULL,
    role text NOT NULL,
    CONSTRAINT members_role_check CHECK ((role = ANY (ARRAY['viewer'::text, 'editor'::text, 'publisher'::text, 'owner'::text])))
);

ALTER TABLE ONLY gitstore.members FORCE ROW LEVEL SECURITY;


ALTER TABLE gitstore.members OWNER TO gitstore;

--
-- Name: migrations; Type: TABLE; Schema: gitstore; Owner: gitstore
--

CREATE TABLE gitstore.migrations (
    number integer NOT NULL,
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);


ALTER TABLE gitstore.migrations OWNER TO gitstore;

--
-- Name: number_marks; Type: TABLE; Schema: gitstore; Owner: gitstore
--

CREATE TABLE gitstore.number_marks (
    workflow_id uuid NOT NULL,
    project_id uuid NOT NULL,
    highest integer NOT NULL,
    CONSTRAINT number_marks_highest_check CHECK ((highest > 0))
);

ALTER TABLE ONLY gitstore.number_marks FORCE ROW LEVEL SECURITY;


ALTER TABLE gitstore.number_marks OWNER TO gitstore;

--
-- Name: projects; Type: TABLE; Schema: gitstore; Owner: gitstore
--

CREATE TABLE gitstore.projects (
    id uuid NOT NULL,
    slug text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL,
    owner uuid,
    rules text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT projects_rules_check CHECK ((rules = ANY (ARRAY['meshhook'::text, 'any'::text])))
);

ALTER TABLE ONLY gitstore.projects FORCE ROW LEVEL SECURITY;


ALTER TABLE gitstore.projects OWNER TO gitstore;

--
-- Name: receipts; Type: TABLE; Schema: gitstore; Owner: gitstore
--

CREATE TABLE gitstore.receipts (
    source_id uuid NOT NULL,
    project_id uuid NOT NULL,
    delivery text NOT NULL COLLATE pg_catalog."C",
    event text NOT NULL,
    received_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE ONLY gitstore.receipts FORCE ROW LEVEL SECURITY;


ALTER TABLE gitstore.receipts OWNER TO gitstore;

--
-- Name: sources; Type: TABLE; Schema: gitstore; Owner: gitstore
--

CREATE TABLE gitstore.sources (
    id uuid NOT NULL,
    project_id uuid NOT NULL,
    url text NOT NULL,
    forge text NOT NULL,
    layout text NOT NULL,
    direction text NOT NULL,
    poll_seconds integer NOT NULL,
    paused boolean DEFAULT false NOT NULL,
    has_credential boolean NOT NULL,
    sealed_credential text,
    sealed_secret text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    due_at timestamp with time zone DEFAULT now() NOT NULL,
    full_sync boolean DEFAULT true NOT NULL,
    claim uuid,
    claimed_until timestamp with time zone,
    tried_at timestamp with time zone,
    succeeded_at timestamp with time zone,
    failures integer DEFAULT 0 NOT NULL,
    last_error text,
    report jsonb DEFAULT '{}'::jsonb NOT NULL,
    crashes integer DEFAULT 0 NOT NULL,
    poisoned_at timestamp with time zone,
    CONSTRAINT sources_direction_check CHECK ((direction = ANY (ARRAY['pull'::text, 'push'::text, 'both'::text]))),
    CONSTRAINT sources_layout_check CHECK ((layout = ANY (ARRAY['refs'::text, 'folders'::text]))),
    CONSTRAINT sources_poll_seconds_check CHECK (((poll_seconds >= 10) AND (poll_seconds <= 86400)))
);

ALTER TABLE ONLY gitstore.sources FORCE ROW LEVEL SECURITY;


ALTER TABLE gitstore.sources OWNER TO gitstore;

--
-- Name: subscription_secrets; Type: TABLE; Schema: gitstore; Owner: gitstore
--

CREATE TABLE gitstore.subscription_secrets (
    id uuid NOT NULL,
    subscription_id uuid NOT NULL,
    project_id uuid NOT NULL,
    sealed text NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    retires_at timestamp with time zone
);

ALTER TABLE ONLY gitstore.subscription_secrets FORCE ROW LEVEL SECURITY;


ALTER TABLE gitstore.subscription_secrets OWNER TO gitstore;

--
-- Name: subscriptions; Type: TABLE; Schema: gitstore; Owner: gitstore
--

CREATE TABLE gitstore.subscriptions (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    project_id uuid NOT NULL,
    url text NOT NULL,
    events text[] NOT NULL,
    state text DEFAULT 'active'::text NOT NULL,
    reason text,
    failing_since timestamp with time zone,
    quiet_until timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT subscriptions_events_check CHECK ((cardinality(events) > 0)),
    CONSTRAINT subscriptions_state_check CHECK ((state = ANY (ARRAY['active'::text, 'paused'::text, 'disabled'::text, 'deleted'::text])))
);

ALTER TABLE ONLY gitstore.subscriptions FORCE ROW LEVEL SECURITY;


ALTER TABLE gitstore.subscriptions OWNER TO gitstore;

--
-- Name: upstream_refs; Type: TABLE; Schema: gitstore; Owner: gitstore
--

CREATE TABLE gitstore.upstream_refs (
    source_id uuid NOT NULL,
    project_id uuid NOT NULL,
    ref text NOT NULL COLLATE pg_catalog."C",
    oid text NOT NULL
);

ALTER TABLE ONLY gitstore.upstream_refs FORCE ROW LEVEL SECURITY;


ALTER TABLE gitstore.upstream_refs OWNER TO gitstore;

--
-- Name: workflow_versions; Type: TABLE; Schema: gitstore; Owner: gitstore
--

CREATE TABLE gitstore.workflow_versions (
    id uuid NOT NULL,
    workflow_id uuid NOT NULL,
    project_id uuid NOT NULL,
    version_number integer NOT NULL,
    state text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    published_at timestamp with time zone,
    commit_sha text NOT NULL,
    ref_oid text NOT NULL,
    tree_sha text NOT NULL,
    blob_sha text NOT NULL,
    file_name text NOT NULL,
    digest text,
    definition jsonb,
    valid boolean NOT NULL,
    message text NOT NULL,
    author_name text NOT NULL,
    author_email text NOT NULL,
    published_by text,
    CONSTRAINT workflow_versions_published_check CHECK ((((state = ANY (ARRAY['published'::text, 'lost'::text])) = (published_at IS NOT NULL)) AND ((published_at IS NULL) = (published_by IS NULL)))),
    CONSTRAINT workflow_versions_state_check CHECK ((state = ANY (ARRAY['draft'::text, 'published'::text, 'lost'::text, 'discarded'::text]))),
    CONSTRAINT workflow_versions_version_number_check CHECK ((version_number > 0))
);

ALTER TABLE ONLY gitstore.workflow_versions FORCE ROW LEVEL SECURITY;


ALTER TABLE gitstore.workflow_versions OWNER TO gitstore;

--
-- Name: workflows; Type: TABLE; Schema: gitstore; Owner: gitstore
--

CREATE TABLE gitstore.workflows (
    id uuid NOT NULL,
    project_id uuid NOT NULL,
    slug text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL,
    description text NOT NULL,
    current_version_id uuid,
    held boolean NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    latest_number integer NOT NULL,
    given_name text,
    given_description text,
    draft_commit text,
    ledger_oid text
);

ALTER TABLE ONLY gitstore.workflows FORCE ROW LEVEL SECURITY;


ALTER TABLE gitstore.workflows OWNER TO gitstore;

--
-- Data for Name: access_tokens; Type: TABLE DATA; Schema: gitstore; Owner: gitstore
--

INSERT INTO gitstore.access_tokens (id, project_id, name, role, sha256, created_at, last_used_at, expires_at, revoked_at) VALUES
	('2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 'owner-11b198', 'owner', '\x94555822e0800555513efb07102aeadc0b0421ee69e204ff423f514c58a09657', '2026-11-27 03:19:12.279485+00', '2026-11-27 03:19:12.297122+00', NULL, NULL),
	('522a51c0-04d2-4736-b63b-89464b4fe3ff', '33510e01-b5ce-48da-add3-cac9b5f2a15b', 'publisher-5fd3ba', 'publisher', '\x6b3ebe72f46d8f5886b9456d42bd5a39fe63f923bf913204a95eca5bbe2b956a', '2026-11-27 03:19:12.552753+00', '2026-11-27 03:19:12.554956+00', NULL, NULL),
	('647e3dfb-c743-4b89-bec3-14dc469378e0', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 'viewer-06e0fe', 'viewer', '\xa3e66fc62db3ebe81c2ab1cee3158a1e010fcd0498e76086ceb186b4786f4320', '2026-11-27 03:19:12.579643+00', NULL, NULL, NULL),
	('11a418d1-63a6-48c3-893f-9d1226f6bde6', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 'revoked', 'editor', '\xf9e258b8df290a74f688e7456a92a2b6dfefbe2b3945e06e23e0b3ed1a98460e', '2026-11-27 03:19:12.584049+00', NULL, NULL, '2026-11-27 03:19:12.588153+00');


--
-- Data for Name: audit_log; Type: TABLE DATA; Schema: gitstore; Owner: gitstore
--

INSERT INTO gitstore.audit_log (id, project_id, at, actor_id, actor_name, door, action, object, remote, request_id, details) VALUES
	('23ab153d-4191-48b0-92b4-e68b67565a92', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.153914+00', 'operator', 'operator', 'cli', 'project.created', 'default', NULL, NULL, '{"rules": "meshhook"}'),
	('0daa98a1-c831-4a29-b734-ebe15ee20cf6', '33510e01-b5ce-48da-add3-cac9b5f2a15b', '2026-11-27 03:19:12.158747+00', 'operator', 'operator', 'cli', 'project.created', 'other', NULL, NULL, '{"rules": "any"}'),
	('8d21181d-eba6-4dba-b757-532e9aaecde9', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.282756+00', 'operator', 'operator', 'cli', 'token.created', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', NULL, NULL, '{"name": "owner-11b198", "role": "owner"}'),
	('86cc53ab-7631-4c75-97e4-9b12b80a5f08', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.312227+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'workflow.draft.updated', 'drafts/order-sync', '127.0.0.1', '943114e1-a7a1-42ec-98a6-a3b2540cc9af', '{"event": "3b67fad6-f78d-53e0-8c6c-2d03746b5612"}'),
	('7b63f5d7-b646-458a-b555-c0244aba8bc4', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.328886+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'workflow.version.published', 'order-sync/v1', '127.0.0.1', '12e03895-7bdc-46bf-80e8-2c8fb148e18f', '{"event": "5854e486-a4fb-5289-8083-d318705572ef"}'),
	('71c8a65f-378e-4712-a32b-ee7b045ce57c', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.328899+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'workflow.current.changed', 'order-sync/v1', '127.0.0.1', '12e03895-7bdc-46bf-80e8-2c8fb148e18f', '{"event": "61b9eea1-f512-5170-981a-cab4c0820c5a"}'),
	('c619da63-8acd-4af4-ace5-49e34e43247b', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.347826+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'workflow.draft.updated', 'drafts/order-sync', '127.0.0.1', 'd77c3774-2cd5-47a4-b27b-d61baff58a72', '{"event": "1c68aa66-9edd-5f14-be48-253ba25d8700"}'),
	('23ee1ffd-6502-483c-86b4-68210c586cf5', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.371064+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'workflow.version.published', 'order-sync/v2', '127.0.0.1', 'd37adc1c-339f-47da-8bd9-3c1c885ddfd5', '{"event": "71577bdc-6667-5901-a7e5-928b4870be0c"}'),
	('67733b3f-d6b4-43c1-b94a-5e7a1c68d578', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.371078+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'workflow.current.changed', 'order-sync/v2', '127.0.0.1', 'd37adc1c-339f-47da-8bd9-3c1c885ddfd5', '{"event": "627b64ca-bc8f-5b23-866d-0d3b899e2c00"}'),
	('44d31e4b-69b3-4de8-a848-4406e916637d', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.393123+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'workflow.draft.updated', 'drafts/order-sync', '127.0.0.1', 'c095468a-5083-4f07-a5c5-45844e2dcd5d', '{"event": "f0f7c5fd-6d2f-53f7-9220-ebffd69d5a86"}'),
	('cceaf6cd-3027-479f-8a5e-b23ad8abd8b0', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.407152+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'workflow.version.published', 'order-sync/v3', '127.0.0.1', '916de662-499e-48b2-827a-d9a244ddf246', '{"event": "0b3a0fed-714e-57c0-9a9e-a2178e8cd2d6"}'),
	('fc3faa28-be2e-40c2-94aa-dadd2de91525', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.407165+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'workflow.current.changed', 'order-sync/v3', '127.0.0.1', '916de662-499e-48b2-827a-d9a244ddf246', '{"event": "e77022c1-af48-5a91-9ef7-60d38d8d2708"}'),
	('bd5015d4-af2d-4045-8312-2625c42f588d', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.416111+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'workflow.draft.updated', 'drafts/order-sync', '127.0.0.1', 'a44347e4-3c49-461e-a7ec-8b7894bb7d65', '{"event": "bf585637-4940-54ac-8acb-8893baef44b5"}'),
	('e1d91c18-788c-47c0-a5fc-20a05659c3bb', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.424216+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'workflow.draft.updated', 'drafts/held', '127.0.0.1', '295e14e6-bb78-4e4f-ab76-fbdaa8127199', '{"event": "0797cccd-635f-5bfc-9bf2-815cb4d665ee"}'),
	('4c1e0eb6-ae48-4301-b865-956ddf706418', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.434842+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'workflow.version.published', 'held/v1', '127.0.0.1', '89a723c1-2a48-4233-9294-90283c095ebf', '{"event": "3dd1e403-f394-52c0-8071-973435f9779d"}'),
	('3c884cb5-fe3b-433a-a500-5a67c1f75730', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.434855+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'workflow.current.changed', 'held/v1', '127.0.0.1', '89a723c1-2a48-4233-9294-90283c095ebf', '{"event": "02a523cb-4c5d-5dcf-b436-e3f5e2825461"}'),
	('02d99e51-461a-4f15-8392-a0b7bb048294', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.448549+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'workflow.draft.updated', 'drafts/held', '127.0.0.1', '8037b5c4-946a-4416-b3b7-cb62039a16ae', '{"event": "cf3b3d31-2335-589d-8b5c-79f4b3348cd0"}'),
	('c58fdcc9-07ce-4c08-a79a-627767cc1462', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.46011+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'workflow.version.published', 'held/v2', '127.0.0.1', '78117335-7e53-492b-bd5f-efec569e92c5', '{"event": "7459b6b9-cdbb-58b0-82ef-43bb1f9ec1d3"}'),
	('f3d73d31-5bdb-485e-a419-4856d9a02de0', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.460123+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'workflow.current.changed', 'held/v2', '127.0.0.1', '78117335-7e53-492b-bd5f-efec569e92c5', '{"event": "f58c41b1-e734-5d9f-8202-48139f361422"}'),
	('7306b8c1-1417-48cb-84aa-f094d961472f', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.469904+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'workflow.current.changed', 'held/v1', '127.0.0.1', '4f20c410-a94a-4554-91fb-0a9c0f650caf', '{"event": "1fd0a091-8d14-5793-b46e-855a63f8693e"}'),
	('7b9b3ca4-81e2-4c1e-ab49-49a3f4fe0165', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.484837+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'workflow.draft.updated', 'drafts/discarded', '127.0.0.1', '3dcc82a8-27ce-4e80-a722-bd13f8fd4a20', '{"event": "f61465bf-431b-524e-9077-df0eeaff4b56"}'),
	('df9f0792-cccd-46a3-8787-f48c0303e070', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.493947+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'workflow.version.published', 'discarded/v1', '127.0.0.1', 'ffc2248b-7f9a-4c54-a7f0-3f1b9f9e7492', '{"event": "a90e7681-5260-5d3f-99e2-bf82e769dd1d"}'),
	('e6081075-8326-41a3-bea7-83bd77e51ec5', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.493961+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'workflow.current.changed', 'discarded/v1', '127.0.0.1', 'ffc2248b-7f9a-4c54-a7f0-3f1b9f9e7492', '{"event": "50f99831-ad05-5369-94a1-9f27980b8e4f"}'),
	('c84ed58d-4cc4-4606-8a57-d97a326642c0', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.504905+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'workflow.draft.updated', 'drafts/discarded', '127.0.0.1', '2c639253-33aa-4c7e-9630-2d979daeebae', '{"event": "f634d95f-1e20-5ba0-9bb6-8b51bf7bf435"}'),
	('3bd80a75-db72-4191-a758-3c82b150152e', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.529445+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'workflow.draft.updated', 'drafts/discarded', '127.0.0.1', '3ea0ab14-850c-48d1-a6de-30a6eb10ce1a', '{"event": "de1a240e-4485-5463-adc2-2ddd5d3b0be0"}'),
	('8119e447-67b2-41bc-8756-c15721ed4863', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.548552+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'workflow.draft.updated', 'drafts/never-published', '127.0.0.1', '1d216f6b-5d20-462f-9680-9cf8db8e58d9', '{"event": "e0e82d2f-0c87-5f4f-a17d-3377628b4d33"}'),
	('247f2125-2c88-4268-b7f8-243fc76b948b', '33510e01-b5ce-48da-add3-cac9b5f2a15b', '2026-11-27 03:19:12.554201+00', 'operator', 'operator', 'cli', 'token.created', '522a51c0-04d2-4736-b63b-89464b4fe3ff', NULL, NULL, '{"name": "publisher-5fd3ba", "role": "publisher"}'),
	('548a613a-525c-4c1b-b992-b98a7c1769e2', '33510e01-b5ce-48da-add3-cac9b5f2a15b', '2026-11-27 03:19:12.559781+00', '522a51c0-04d2-4736-b63b-89464b4fe3ff', 'publisher-5fd3ba', 'http', 'workflow.draft.updated', 'drafts/any-rules', '127.0.0.1', 'f4d5a622-9531-4e80-989a-8b87ceb7001f', '{"event": "a1f719ba-b3a8-5498-8dad-849f0b4cb189"}'),
	('a6e937bc-ae6c-4992-89e1-addf5af9dc27', '33510e01-b5ce-48da-add3-cac9b5f2a15b', '2026-11-27 03:19:12.577215+00', '522a51c0-04d2-4736-b63b-89464b4fe3ff', 'publisher-5fd3ba', 'http', 'workflow.version.published', 'any-rules/v1', '127.0.0.1', 'b696f948-b64a-41f4-b244-5c0aed1947a4', '{"event": "1d1c58f6-fa0c-59d7-8d14-69fa72ce06c3"}'),
	('8f055bed-e4ea-4749-a30d-68ec06a6d324', '33510e01-b5ce-48da-add3-cac9b5f2a15b', '2026-11-27 03:19:12.577238+00', '522a51c0-04d2-4736-b63b-89464b4fe3ff', 'publisher-5fd3ba', 'http', 'workflow.current.changed', 'any-rules/v1', '127.0.0.1', 'b696f948-b64a-41f4-b244-5c0aed1947a4', '{"event": "faafa6a8-313b-565d-8709-adb0a8fa7d9e"}'),
	('62fc22d9-910f-485d-9ac2-8eb524d22f13', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.580844+00', 'operator', 'operator', 'cli', 'token.created', '647e3dfb-c743-4b89-bec3-14dc469378e0', NULL, NULL, '{"name": "viewer-06e0fe", "role": "viewer"}'),
	('7f3d4a0f-099f-4fba-bf64-82592195489d', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.585061+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'token.created', '11a418d1-63a6-48c3-893f-9d1226f6bde6', '127.0.0.1', '3b193db3-afbe-422b-93c6-069df85bbee0', '{"name": "revoked", "role": "editor"}'),
	('40153af5-9f65-46e2-a115-9e840dbc4569', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.589422+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'token.revoked', '11a418d1-63a6-48c3-893f-9d1226f6bde6', '127.0.0.1', 'ae7ff2b3-d497-4abf-98c0-a284803895ca', '{}'),
	('472cd138-7a75-4fea-85b4-dd2963978924', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.602693+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'subscription.created', '1038a71e-771a-4fbf-9f11-b0d58facffa3', '127.0.0.1', '8c73ced3-be20-4662-a9b2-8b09ae1008df', '{"events": ["workflow.version.published", "workflow.draft.updated", "workflow.current.changed", "workflow.version.diverged"]}'),
	('63aa7b55-9879-4bce-b107-bc2e5e3e27bd', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '2026-11-27 03:19:12.607573+00', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b', 'owner-11b198', 'http', 'source.created', 'e09760f0-008d-4761-ada8-fc3e3135d97c', '127.0.0.1', '404f111c-c011-4d03-8a01-74d2a1cc9bc9', '{"url": "https://a.example/a.git", "direction": "pull"}');


--
-- Data for Name: deliveries; Type: TABLE DATA; Schema: gitstore; Owner: gitstore
--



--
-- Data for Name: delivery_attempts; Type: TABLE DATA; Schema: gitstore; Owner: gitstore
--



--
-- Data for Name: divergences; Type: TABLE DATA; Schema: gitstore; Owner: gitstore
--



--
-- Data for Name: event_queue; Type: TABLE DATA; Schema: gitstore; Owner: gitstore
--



--
-- Data for Name: events; Type: TABLE DATA; Schema: gitstore; Owner: gitstore
--

INSERT INTO gitstore.events (id, project_id, workflow_id, type, created_at, recorded_at, data) VALUES
	('3b67fad6-f78d-53e0-8c6c-2d03746b5612', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 'fc7a898c-0123-5551-939f-d9e84cdbe39b', 'workflow.draft.updated', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.300429+00', '{"valid": true, "author": {"name": "token:owner-11b198", "email": "2c2be8d4-f4b1-48ae-bd6c-60b65162218b@tokens.gitstore"}, "commit": "cc1bc3427382ee6d34771408614746ebb9d8e968", "digest": "sha256:95718d558a50364cb41814358b9b2d54a0d0743af63b31382bf3aad36f6dcd29", "message": "Create the draft", "workflow": "order-sync", "discarded": false, "version_id": "b4d0b945-3293-517a-861a-ac5df3f51abc", "version_number": 1}'),
	('5854e486-a4fb-5289-8083-d318705572ef', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 'fc7a898c-0123-5551-939f-d9e84cdbe39b', 'workflow.version.published', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.323235+00', '{"valid": true, "author": {"name": "token:owner-11b198", "email": "2c2be8d4-f4b1-48ae-bd6c-60b65162218b@tokens.gitstore"}, "commit": "cc1bc3427382ee6d34771408614746ebb9d8e968", "digest": "sha256:95718d558a50364cb41814358b9b2d54a0d0743af63b31382bf3aad36f6dcd29", "message": "The first", "workflow": "order-sync", "activated": true, "version_id": "b4d0b945-3293-517a-861a-ac5df3f51abc", "published_by": "token:owner-11b198", "version_number": 1}'),
	('61b9eea1-f512-5170-981a-cab4c0820c5a', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 'fc7a898c-0123-5551-939f-d9e84cdbe39b', 'workflow.current.changed', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.323235+00', '{"by": "token:owner-11b198", "held": false, "message": "The first", "previous": null, "workflow": "order-sync", "version_id": "b4d0b945-3293-517a-861a-ac5df3f51abc", "version_number": 1}'),
	('1c68aa66-9edd-5f14-be48-253ba25d8700', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 'fc7a898c-0123-5551-939f-d9e84cdbe39b', 'workflow.draft.updated', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.339787+00', '{"valid": true, "author": {"name": "token:owner-11b198", "email": "2c2be8d4-f4b1-48ae-bd6c-60b65162218b@tokens.gitstore"}, "commit": "943f87b00641f9c79de7117b8e1bc345c57a5951", "digest": "sha256:3cd8c5d2ce94b8695adb08a98eb542ea2b44827a8329878767e7b4708ebf2777", "message": "url of call changed, name removed", "workflow": "order-sync", "discarded": false, "version_id": "30aba615-7d0c-53db-a23d-6af4926459c8", "version_number": 2}'),
	('71577bdc-6667-5901-a7e5-928b4870be0c', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 'fc7a898c-0123-5551-939f-d9e84cdbe39b', 'workflow.version.published', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.360435+00', '{"valid": true, "author": {"name": "token:owner-11b198", "email": "2c2be8d4-f4b1-48ae-bd6c-60b65162218b@tokens.gitstore"}, "commit": "943f87b00641f9c79de7117b8e1bc345c57a5951", "digest": "sha256:3cd8c5d2ce94b8695adb08a98eb542ea2b44827a8329878767e7b4708ebf2777", "message": "Publish order-sync v2", "workflow": "order-sync", "activated": true, "version_id": "30aba615-7d0c-53db-a23d-6af4926459c8", "published_by": "token:owner-11b198", "version_number": 2}'),
	('627b64ca-bc8f-5b23-866d-0d3b899e2c00', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 'fc7a898c-0123-5551-939f-d9e84cdbe39b', 'workflow.current.changed', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.360435+00', '{"by": "token:owner-11b198", "held": false, "message": "", "previous": 1, "workflow": "order-sync", "version_id": "30aba615-7d0c-53db-a23d-6af4926459c8", "version_number": 2}'),
	('f0f7c5fd-6d2f-53f7-9220-ebffd69d5a86', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 'fc7a898c-0123-5551-939f-d9e84cdbe39b', 'workflow.draft.updated', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.382519+00', '{"valid": true, "author": {"name": "token:owner-11b198", "email": "2c2be8d4-f4b1-48ae-bd6c-60b65162218b@tokens.gitstore"}, "commit": "48fd377b658f2941573a7ad6a5502a0f36a2439c", "digest": "sha256:6a398a881c5526812fdea60accfeda6606f24fb526cdca382267c8cacfdde709", "message": "url of call changed", "workflow": "order-sync", "discarded": false, "version_id": "99c427a4-27bd-5512-8e67-2665c912b33e", "version_number": 3}'),
	('0b3a0fed-714e-57c0-9a9e-a2178e8cd2d6', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 'fc7a898c-0123-5551-939f-d9e84cdbe39b', 'workflow.version.published', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.401527+00', '{"valid": true, "author": {"name": "token:owner-11b198", "email": "2c2be8d4-f4b1-48ae-bd6c-60b65162218b@tokens.gitstore"}, "commit": "48fd377b658f2941573a7ad6a5502a0f36a2439c", "digest": "sha256:6a398a881c5526812fdea60accfeda6606f24fb526cdca382267c8cacfdde709", "message": "Publish order-sync v3", "workflow": "order-sync", "activated": true, "version_id": "99c427a4-27bd-5512-8e67-2665c912b33e", "published_by": "token:owner-11b198", "version_number": 3}'),
	('e77022c1-af48-5a91-9ef7-60d38d8d2708', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 'fc7a898c-0123-5551-939f-d9e84cdbe39b', 'workflow.current.changed', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.401527+00', '{"by": "token:owner-11b198", "held": false, "message": "", "previous": 2, "workflow": "order-sync", "version_id": "99c427a4-27bd-5512-8e67-2665c912b33e", "version_number": 3}'),
	('bf585637-4940-54ac-8acb-8893baef44b5', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 'fc7a898c-0123-5551-939f-d9e84cdbe39b', 'workflow.draft.updated', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.410693+00', '{"valid": true, "author": {"name": "token:owner-11b198", "email": "2c2be8d4-f4b1-48ae-bd6c-60b65162218b@tokens.gitstore"}, "commit": "1d49e47af3f4bd1d9042886c47f48b4de4564454", "digest": "sha256:037e6e8965db7b8b1c8cfba01e8dfabee460cdf1fa2c0a78e972009dec72db21", "message": "Not ready yet", "workflow": "order-sync", "discarded": false, "version_id": "f8bc90af-a25f-5846-ac4d-aa904d41eff4", "version_number": 4}'),
	('0797cccd-635f-5bfc-9bf2-815cb4d665ee', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '0a51fca1-9aff-5be3-bdfa-f424d1ae5be1', 'workflow.draft.updated', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.41957+00', '{"valid": true, "author": {"name": "token:owner-11b198", "email": "2c2be8d4-f4b1-48ae-bd6c-60b65162218b@tokens.gitstore"}, "commit": "cc1bc3427382ee6d34771408614746ebb9d8e968", "digest": "sha256:95718d558a50364cb41814358b9b2d54a0d0743af63b31382bf3aad36f6dcd29", "message": "Create the draft", "workflow": "held", "discarded": false, "version_id": "436e4842-813b-565c-9570-2b761d5c9a8a", "version_number": 1}'),
	('3dd1e403-f394-52c0-8071-973435f9779d', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '0a51fca1-9aff-5be3-bdfa-f424d1ae5be1', 'workflow.version.published', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.430343+00', '{"valid": true, "author": {"name": "token:owner-11b198", "email": "2c2be8d4-f4b1-48ae-bd6c-60b65162218b@tokens.gitstore"}, "commit": "cc1bc3427382ee6d34771408614746ebb9d8e968", "digest": "sha256:95718d558a50364cb41814358b9b2d54a0d0743af63b31382bf3aad36f6dcd29", "message": "The first", "workflow": "held", "activated": true, "version_id": "436e4842-813b-565c-9570-2b761d5c9a8a", "published_by": "token:owner-11b198", "version_number": 1}'),
	('02a523cb-4c5d-5dcf-b436-e3f5e2825461', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '0a51fca1-9aff-5be3-bdfa-f424d1ae5be1', 'workflow.current.changed', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.430343+00', '{"by": "token:owner-11b198", "held": false, "message": "The first", "previous": null, "workflow": "held", "version_id": "436e4842-813b-565c-9570-2b761d5c9a8a", "version_number": 1}'),
	('cf3b3d31-2335-589d-8b5c-79f4b3348cd0', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '0a51fca1-9aff-5be3-bdfa-f424d1ae5be1', 'workflow.draft.updated', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.444497+00', '{"valid": true, "author": {"name": "token:owner-11b198", "email": "2c2be8d4-f4b1-48ae-bd6c-60b65162218b@tokens.gitstore"}, "commit": "943f87b00641f9c79de7117b8e1bc345c57a5951", "digest": "sha256:3cd8c5d2ce94b8695adb08a98eb542ea2b44827a8329878767e7b4708ebf2777", "message": "url of call changed, name removed", "workflow": "held", "discarded": false, "version_id": "7c71a62c-3761-5f2b-a18b-4c399ea5368b", "version_number": 2}'),
	('7459b6b9-cdbb-58b0-82ef-43bb1f9ec1d3', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '0a51fca1-9aff-5be3-bdfa-f424d1ae5be1', 'workflow.version.published', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.454564+00', '{"valid": true, "author": {"name": "token:owner-11b198", "email": "2c2be8d4-f4b1-48ae-bd6c-60b65162218b@tokens.gitstore"}, "commit": "943f87b00641f9c79de7117b8e1bc345c57a5951", "digest": "sha256:3cd8c5d2ce94b8695adb08a98eb542ea2b44827a8329878767e7b4708ebf2777", "message": "Publish held v2", "workflow": "held", "activated": true, "version_id": "7c71a62c-3761-5f2b-a18b-4c399ea5368b", "published_by": "token:owner-11b198", "version_number": 2}'),
	('f58c41b1-e734-5d9f-8202-48139f361422', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '0a51fca1-9aff-5be3-bdfa-f424d1ae5be1', 'workflow.current.changed', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.454564+00', '{"by": "token:owner-11b198", "held": false, "message": "", "previous": 1, "workflow": "held", "version_id": "7c71a62c-3761-5f2b-a18b-4c399ea5368b", "version_number": 2}'),
	('1fd0a091-8d14-5793-b46e-855a63f8693e', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '0a51fca1-9aff-5be3-bdfa-f424d1ae5be1', 'workflow.current.changed', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.464452+00', '{"by": "token:owner-11b198", "held": true, "message": "v2 fails", "previous": 2, "workflow": "held", "version_id": "436e4842-813b-565c-9570-2b761d5c9a8a", "version_number": 1}'),
	('f61465bf-431b-524e-9077-df0eeaff4b56', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '04bd7cab-06db-526a-9ffc-9575228949b5', 'workflow.draft.updated', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.477479+00', '{"valid": true, "author": {"name": "token:owner-11b198", "email": "2c2be8d4-f4b1-48ae-bd6c-60b65162218b@tokens.gitstore"}, "commit": "cc1bc3427382ee6d34771408614746ebb9d8e968", "digest": "sha256:95718d558a50364cb41814358b9b2d54a0d0743af63b31382bf3aad36f6dcd29", "message": "Create the draft", "workflow": "discarded", "discarded": false, "version_id": "2e573c86-6d83-5bc1-884c-f74d4beb1732", "version_number": 1}'),
	('a90e7681-5260-5d3f-99e2-bf82e769dd1d', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '04bd7cab-06db-526a-9ffc-9575228949b5', 'workflow.version.published', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.490137+00', '{"valid": true, "author": {"name": "token:owner-11b198", "email": "2c2be8d4-f4b1-48ae-bd6c-60b65162218b@tokens.gitstore"}, "commit": "cc1bc3427382ee6d34771408614746ebb9d8e968", "digest": "sha256:95718d558a50364cb41814358b9b2d54a0d0743af63b31382bf3aad36f6dcd29", "message": "The first", "workflow": "discarded", "activated": true, "version_id": "2e573c86-6d83-5bc1-884c-f74d4beb1732", "published_by": "token:owner-11b198", "version_number": 1}'),
	('50f99831-ad05-5369-94a1-9f27980b8e4f', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '04bd7cab-06db-526a-9ffc-9575228949b5', 'workflow.current.changed', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.490137+00', '{"by": "token:owner-11b198", "held": false, "message": "The first", "previous": null, "workflow": "discarded", "version_id": "2e573c86-6d83-5bc1-884c-f74d4beb1732", "version_number": 1}'),
	('f634d95f-1e20-5ba0-9bb6-8b51bf7bf435', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '04bd7cab-06db-526a-9ffc-9575228949b5', 'workflow.draft.updated', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.497789+00', '{"valid": true, "author": {"name": "token:owner-11b198", "email": "2c2be8d4-f4b1-48ae-bd6c-60b65162218b@tokens.gitstore"}, "commit": "008cc3c8d092a94f35dd84f3e2f994226a3477b3", "digest": "sha256:95718d558a50364cb41814358b9b2d54a0d0743af63b31382bf3aad36f6dcd29", "message": "Begin a draft", "workflow": "discarded", "discarded": false, "version_id": "86d7f4d8-16f9-5a79-b2f5-28115ef8ae2b", "version_number": 2}'),
	('de1a240e-4485-5463-adc2-2ddd5d3b0be0', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '04bd7cab-06db-526a-9ffc-9575228949b5', 'workflow.draft.updated', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.507582+00', '{"commit": null, "message": "", "workflow": "discarded", "discarded": true}'),
	('e0e82d2f-0c87-5f4f-a17d-3377628b4d33', 'abf4a885-f605-4c01-8a0a-66401c77b33d', '44d0d199-7425-56fb-8fc6-0e3ede45e307', 'workflow.draft.updated', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.537159+00', '{"valid": false, "author": {"name": "token:owner-11b198", "email": "2c2be8d4-f4b1-48ae-bd6c-60b65162218b@tokens.gitstore"}, "commit": "6e05fb4cad3927f75ee6e754061f197d0f23fb41", "digest": "sha256:14e232719ea7850209c6ad68be11fe685b66a394c5ca09367403e8ef155ff0d9", "message": "Create the draft", "workflow": "never-published", "discarded": false, "version_id": "7d9490b1-5842-5e0e-8109-49086218028c", "version_number": 1}'),
	('a1f719ba-b3a8-5498-8dad-849f0b4cb189', '33510e01-b5ce-48da-add3-cac9b5f2a15b', 'a9c345de-b105-5e67-98c3-4d12a75b8cbf', 'workflow.draft.updated', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.556207+00', '{"valid": true, "author": {"name": "token:publisher-5fd3ba", "email": "522a51c0-04d2-4736-b63b-89464b4fe3ff@tokens.gitstore"}, "commit": "d1222f2412b4c6dbafc2f017d44ce9043046a088", "digest": "sha256:4cfa74a06f97fe0cca7cc7b548e0192a219cf80baa3611f970e773c86da1f7b3", "message": "Create the draft", "workflow": "any-rules", "discarded": false, "version_id": "31c03281-746a-542d-87bd-8b7a934464e0", "version_number": 1}'),
	('1d1c58f6-fa0c-59d7-8d14-69fa72ce06c3', '33510e01-b5ce-48da-add3-cac9b5f2a15b', 'a9c345de-b105-5e67-98c3-4d12a75b8cbf', 'workflow.version.published', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.572343+00', '{"valid": true, "author": {"name": "token:publisher-5fd3ba", "email": "522a51c0-04d2-4736-b63b-89464b4fe3ff@tokens.gitstore"}, "commit": "d1222f2412b4c6dbafc2f017d44ce9043046a088", "digest": "sha256:4cfa74a06f97fe0cca7cc7b548e0192a219cf80baa3611f970e773c86da1f7b3", "message": "The first", "workflow": "any-rules", "activated": true, "version_id": "31c03281-746a-542d-87bd-8b7a934464e0", "published_by": "token:publisher-5fd3ba", "version_number": 1}'),
	('faafa6a8-313b-565d-8709-adb0a8fa7d9e', '33510e01-b5ce-48da-add3-cac9b5f2a15b', 'a9c345de-b105-5e67-98c3-4d12a75b8cbf', 'workflow.current.changed', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12.572343+00', '{"by": "token:publisher-5fd3ba", "held": false, "message": "The first", "previous": null, "workflow": "any-rules", "version_id": "31c03281-746a-542d-87bd-8b7a934464e0", "version_number": 1}');


--
-- Data for Name: git_objects; Type: TABLE DATA; Schema: gitstore; Owner: gitstore
--

INSERT INTO gitstore.git_objects (project_id, oid, kind, bytes) VALUES
	('abf4a885-f605-4c01-8a0a-66401c77b33d', 'c4ad86ecf32ddbf2e41699e2350f8c5579ee095c', 'commit', '\x7472656520346238323564633634326362366562396130363065353462663864363932383866626565343930340a617574686f7220746f6b656e3a6f776e65722d313162313938203c32633262653864342d663462312d343861652d626436632d36306236353136323231386240746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a636f6d6d69747465722067697473746f7265203c67697473746f7265406c6f63616c686f73743e2031373935373439353532202b303030300a0a43726561746564206f726465722d73796e630a0a47697473746f72652d4576656e743a20637265617465640a47697473746f72652d4e616d653a20224f726465722d53796e63220a47697473746f72652d4c61746573743a206e6f6e650a47697473746f72652d43757272656e743a206e6f6e650a47697473746f72652d48656c643a206e6f0a'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', '4a9c81dc5d1b6f58c057e6d1dde84d303cb36708', 'tree', '\x31303036343420776f726b666c6f772e79616d6c00f58a41a8e133b38b705e8e3c33359044a5365bf1'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', '96ed3cff47a9764ce655727b6376bfac00e474c8', 'tag', '\x6f626a65637420636331626333343237333832656536643334373731343038363134373436656262396438653936380a7479706520636f6d6d69740a746167206f726465722d73796e632f76310a74616767657220746f6b656e3a6f776e65722d313162313938203c32633262653864342d663462312d343861652d626436632d36306236353136323231386240746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a0a5468652066697273740a'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', '9a32b1a9dbab15a81e6b01972c07e71749f1a11b', 'commit', '\x7472656520346238323564633634326362366562396130363065353462663864363932383866626565343930340a706172656e7420633461643836656366333264646266326534313639396532333530663863353537396565303935630a617574686f7220746f6b656e3a6f776e65722d313162313938203c32633262653864342d663462312d343861652d626436632d36306236353136323231386240746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a636f6d6d69747465722067697473746f7265203c67697473746f7265406c6f63616c686f73743e2031373935373439353532202b303030300a0a5075626c6973686564206f726465722d73796e632076310a0a5468652066697273740a0a47697473746f72652d4576656e743a207075626c69736865640a47697473746f72652d56657273696f6e3a2076310a47697473746f72652d4f626a6563743a20393665643363666634376139373634636536353537323762363337366266616330306534373463380a47697473746f72652d4c61746573743a2076310a47697473746f72652d43757272656e743a2076310a47697473746f72652d48656c643a206e6f0a'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', 'cc1bc3427382ee6d34771408614746ebb9d8e968', 'commit', '\x7472656520346139633831646335643162366635386330353765366431646465383464333033636233363730380a617574686f7220746f6b656e3a6f776e65722d313162313938203c32633262653864342d663462312d343861652d626436632d36306236353136323231386240746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a636f6d6d69747465722067697473746f7265203c67697473746f7265406c6f63616c686f73743e2031373935373439353532202b303030300a0a437265617465207468652064726166740a'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', 'f58a41a8e133b38b705e8e3c33359044a5365bf1', 'blob', '\x23205468652077617265686f7573652077616e747320697420736f2e0a6e616d653a204f726465722073796e630a6e6f6465733a0a20202d2069643a20686f6f6b0a20202020747970653a20776562686f6f6b0a20202020646174613a207b6c6162656c3a20486f6f6b2c20636f6e6669673a207b7d7d0a20202d2069643a2063616c6c0a20202020747970653a206874747043616c6c0a20202020646174613a207b6c6162656c3a2043616c6c2c20636f6e6669673a207b75726c3a202268747470733a2f2f612e6578616d706c652f222c206d6574686f643a20504f53547d7d0a65646765733a0a20202d207b69643a20652c20736f757263653a20686f6f6b2c207461726765743a2063616c6c7d0a'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', '01ccaab3916c21f047d5376ec1f60301ff905bf8', 'tag', '\x6f626a65637420393433663837623030363431663963373964653731313762386531626333343563353761353935310a7479706520636f6d6d69740a746167206f726465722d73796e632f76320a74616767657220746f6b656e3a6f776e65722d313162313938203c32633262653864342d663462312d343861652d626436632d36306236353136323231386240746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a0a5075626c697368206f726465722d73796e632076320a'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', '151f4b8c1258fa638c32fd4f5c4fd291c376735b', 'blob', '\x65646765733a0a20202d2069643a20650a20202020736f757263653a20686f6f6b0a202020207461726765743a2063616c6c0a6e6f6465733a0a20202d20646174613a0a202020202020636f6e6669673a207b7d0a2020202020206c6162656c3a20486f6f6b0a2020202069643a20686f6f6b0a20202020747970653a20776562686f6f6b0a20202d20646174613a0a202020202020636f6e6669673a0a20202020202020206d6574686f643a20504f53540a202020202020202075726c3a2068747470733a2f2f322e6578616d706c652f0a2020202020206c6162656c3a2043616c6c0a2020202069643a2063616c6c0a20202020747970653a206874747043616c6c0a'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', '5be379735ff6000e246efacb4e923e25676dcb56', 'tree', '\x31303036343420776f726b666c6f772e79616d6c00151f4b8c1258fa638c32fd4f5c4fd291c376735b'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', '943f87b00641f9c79de7117b8e1bc345c57a5951', 'commit', '\x7472656520356265333739373335666636303030653234366566616362346539323365323536373664636235360a706172656e7420636331626333343237333832656536643334373731343038363134373436656262396438653936380a617574686f7220746f6b656e3a6f776e65722d313162313938203c32633262653864342d663462312d343861652d626436632d36306236353136323231386240746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a636f6d6d69747465722067697473746f7265203c67697473746f7265406c6f63616c686f73743e2031373935373439353532202b303030300a0a75726c206f662063616c6c206368616e6765642c206e616d652072656d6f7665640a'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', 'd17a4802c784fba14f65a9b3cb888af4c9c3e76d', 'commit', '\x7472656520346238323564633634326362366562396130363065353462663864363932383866626565343930340a706172656e7420396133326231613964626162313561383165366230313937326330376537313734396631613131620a617574686f7220746f6b656e3a6f776e65722d313162313938203c32633262653864342d663462312d343861652d626436632d36306236353136323231386240746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a636f6d6d69747465722067697473746f7265203c67697473746f7265406c6f63616c686f73743e2031373935373439353532202b303030300a0a5075626c6973686564206f726465722d73796e632076320a0a47697473746f72652d4576656e743a207075626c69736865640a47697473746f72652d56657273696f6e3a2076320a47697473746f72652d4f626a6563743a20303163636161623339313663323166303437643533373665633166363033303166663930356266380a47697473746f72652d4c61746573743a2076320a47697473746f72652d43757272656e743a2076320a47697473746f72652d48656c643a206e6f0a'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', '24adc2f4684e84a61c0e8076290badac966a95e3', 'commit', '\x7472656520346238323564633634326362366562396130363065353462663864363932383866626565343930340a706172656e7420643137613438303263373834666261313466363561396233636238383861663463396333653736640a617574686f7220746f6b656e3a6f776e65722d313162313938203c32633262653864342d663462312d343861652d626436632d36306236353136323231386240746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a636f6d6d69747465722067697473746f7265203c67697473746f7265406c6f63616c686f73743e2031373935373439353532202b303030300a0a5075626c6973686564206f726465722d73796e632076330a0a47697473746f72652d4576656e743a207075626c69736865640a47697473746f72652d56657273696f6e3a2076330a47697473746f72652d4f626a6563743a20346138376565363930303535306362616266373666663032646531623863393531663963666135360a47697473746f72652d4c61746573743a2076330a47697473746f72652d43757272656e743a2076330a47697473746f72652d48656c643a206e6f0a'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', '48fd377b658f2941573a7ad6a5502a0f36a2439c', 'commit', '\x7472656520376164643661653231333863303639373266633936323435313762343238323334383666346332330a706172656e7420393433663837623030363431663963373964653731313762386531626333343563353761353935310a617574686f7220746f6b656e3a6f776e65722d313162313938203c32633262653864342d663462312d343861652d626436632d36306236353136323231386240746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a636f6d6d69747465722067697473746f7265203c67697473746f7265406c6f63616c686f73743e2031373935373439353532202b303030300a0a75726c206f662063616c6c206368616e6765640a'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', '4a87ee6900550cbabf76ff02de1b8c951f9cfa56', 'tag', '\x6f626a65637420343866643337376236353866323934313537336137616436613535303261306633366132343339630a7479706520636f6d6d69740a746167206f726465722d73796e632f76330a74616767657220746f6b656e3a6f776e65722d313162313938203c32633262653864342d663462312d343861652d626436632d36306236353136323231386240746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a0a5075626c697368206f726465722d73796e632076330a'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', '7add6ae2138c06972fc9624517b42823486f4c23', 'tree', '\x31303036343420776f726b666c6f772e79616d6c00f05a2eba1171cbe946bb0d1b4d2fa6221ebd439b'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', 'f05a2eba1171cbe946bb0d1b4d2fa6221ebd439b', 'blob', '\x65646765733a0a20202d2069643a20650a20202020736f757263653a20686f6f6b0a202020207461726765743a2063616c6c0a6e6f6465733a0a20202d20646174613a0a202020202020636f6e6669673a207b7d0a2020202020206c6162656c3a20486f6f6b0a2020202069643a20686f6f6b0a20202020747970653a20776562686f6f6b0a20202d20646174613a0a202020202020636f6e6669673a0a20202020202020206d6574686f643a20504f53540a202020202020202075726c3a2068747470733a2f2f332e6578616d706c652f0a2020202020206c6162656c3a2043616c6c0a2020202069643a2063616c6c0a20202020747970653a206874747043616c6c0a'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', '9c4420d51b981d7e48fcbeda791fce3f668bb87c', 'commit', '\x7472656520346238323564633634326362366562396130363065353462663864363932383866626565343930340a617574686f7220746f6b656e3a6f776e65722d313162313938203c32633262653864342d663462312d343861652d626436632d36306236353136323231386240746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a636f6d6d69747465722067697473746f7265203c67697473746f7265406c6f63616c686f73743e2031373935373439353532202b303030300a0a437265617465642068656c640a0a47697473746f72652d4576656e743a20637265617465640a47697473746f72652d4e616d653a202248656c64220a47697473746f72652d4c61746573743a206e6f6e650a47697473746f72652d43757272656e743a206e6f6e650a47697473746f72652d48656c643a206e6f0a'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', '69a7af496ef48fc0bc705947d1f4ab8aa11f8718', 'commit', '\x7472656520346238323564633634326362366562396130363065353462663864363932383866626565343930340a706172656e7420396334343230643531623938316437653438666362656461373931666365336636363862623837630a617574686f7220746f6b656e3a6f776e65722d313162313938203c32633262653864342d663462312d343861652d626436632d36306236353136323231386240746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a636f6d6d69747465722067697473746f7265203c67697473746f7265406c6f63616c686f73743e2031373935373439353532202b303030300a0a5075626c69736865642068656c642076310a0a5468652066697273740a0a47697473746f72652d4576656e743a207075626c69736865640a47697473746f72652d56657273696f6e3a2076310a47697473746f72652d4f626a6563743a20373663313761363931303063666331363563653532353530343365633636313531383237653635650a47697473746f72652d4c61746573743a2076310a47697473746f72652d43757272656e743a2076310a47697473746f72652d48656c643a206e6f0a'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', '76c17a69100cfc165ce5255043ec66151827e65e', 'tag', '\x6f626a65637420636331626333343237333832656536643334373731343038363134373436656262396438653936380a7479706520636f6d6d69740a7461672068656c642f76310a74616767657220746f6b656e3a6f776e65722d313162313938203c32633262653864342d663462312d343861652d626436632d36306236353136323231386240746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a0a5468652066697273740a'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', '5a2d3d3859e0395c3ac25e15dc5799e3cbd3c53d', 'commit', '\x7472656520346238323564633634326362366562396130363065353462663864363932383866626565343930340a706172656e7420363961376166343936656634386663306263373035393437643166346162386161313166383731380a617574686f7220746f6b656e3a6f776e65722d313162313938203c32633262653864342d663462312d343861652d626436632d36306236353136323231386240746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a636f6d6d69747465722067697473746f7265203c67697473746f7265406c6f63616c686f73743e2031373935373439353532202b303030300a0a5075626c69736865642068656c642076320a0a47697473746f72652d4576656e743a207075626c69736865640a47697473746f72652d56657273696f6e3a2076320a47697473746f72652d4f626a6563743a20646530386434343262313130386433353365663265623335366561386266386236323765393334360a47697473746f72652d4c61746573743a2076320a47697473746f72652d43757272656e743a2076320a47697473746f72652d48656c643a206e6f0a'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', 'de08d442b1108d353ef2eb356ea8bf8b627e9346', 'tag', '\x6f626a65637420393433663837623030363431663963373964653731313762386531626333343563353761353935310a7479706520636f6d6d69740a7461672068656c642f76320a74616767657220746f6b656e3a6f776e65722d313162313938203c32633262653864342d663462312d343861652d626436632d36306236353136323231386240746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a0a5075626c6973682068656c642076320a'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', '04ef505949970e9938bcd1d98a5d4add138e8c10', 'commit', '\x7472656520346238323564633634326362366562396130363065353462663864363932383866626565343930340a706172656e7420356132643364333835396530333935633361633235653135646335373939653363626433633533640a617574686f7220746f6b656e3a6f776e65722d313162313938203c32633262653864342d663462312d343861652d626436632d36306236353136323231386240746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a636f6d6d69747465722067697473746f7265203c67697473746f7265406c6f63616c686f73743e2031373935373439353532202b303030300a0a48656c642063757272656e74206f662068656c6420746f2076310a0a7632206661696c730a0a47697473746f72652d4576656e743a2063757272656e742d6d6f7665640a47697473746f72652d56657273696f6e3a2076310a47697473746f72652d4c61746573743a2076320a47697473746f72652d43757272656e743a2076310a47697473746f72652d48656c643a207965730a'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', 'feaea54069a64e599459d3184450d0992d3e5f7a', 'commit', '\x7472656520346238323564633634326362366562396130363065353462663864363932383866626565343930340a617574686f7220746f6b656e3a6f776e65722d313162313938203c32633262653864342d663462312d343861652d626436632d36306236353136323231386240746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a636f6d6d69747465722067697473746f7265203c67697473746f7265406c6f63616c686f73743e2031373935373439353532202b303030300a0a43726561746564206469736361726465640a0a47697473746f72652d4576656e743a20637265617465640a47697473746f72652d4e616d653a2022446973636172646564220a47697473746f72652d4c61746573743a206e6f6e650a47697473746f72652d43757272656e743a206e6f6e650a47697473746f72652d48656c643a206e6f0a'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', 'a1f7a8b56947db9c8f3914ddd0051fa1a72054ac', 'tag', '\x6f626a65637420636331626333343237333832656536643334373731343038363134373436656262396438653936380a7479706520636f6d6d69740a746167206469736361726465642f76310a74616767657220746f6b656e3a6f776e65722d313162313938203c32633262653864342d663462312d343861652d626436632d36306236353136323231386240746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a0a5468652066697273740a'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', 'bd6122583ab22fdc4066d6f30251b0b53a6e177f', 'commit', '\x7472656520346238323564633634326362366562396130363065353462663864363932383866626565343930340a706172656e7420666561656135343036396136346535393934353964333138343435306430393932643365356637610a617574686f7220746f6b656e3a6f776e65722d313162313938203c32633262653864342d663462312d343861652d626436632d36306236353136323231386240746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a636f6d6d69747465722067697473746f7265203c67697473746f7265406c6f63616c686f73743e2031373935373439353532202b303030300a0a5075626c6973686564206469736361726465642076310a0a5468652066697273740a0a47697473746f72652d4576656e743a207075626c69736865640a47697473746f72652d56657273696f6e3a2076310a47697473746f72652d4f626a6563743a20613166376138623536393437646239633866333931346464643030353166613161373230353461630a47697473746f72652d4c61746573743a2076310a47697473746f72652d43757272656e743a2076310a47697473746f72652d48656c643a206e6f0a'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', 'dcf39b19946bd0f3519e6a7848e7557fd8f403ba', 'commit', '\x7472656520346238323564633634326362366562396130363065353462663864363932383866626565343930340a706172656e7420626436313232353833616232326664633430363664366633303235316230623533613665313737660a617574686f7220746f6b656e3a6f776e65722d313162313938203c32633262653864342d663462312d343861652d626436632d36306236353136323231386240746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a636f6d6d69747465722067697473746f7265203c67697473746f7265406c6f63616c686f73743e2031373935373439353532202b303030300a0a44697363617264656420746865206472616674206f66206469736361726465640a0a47697473746f72652d4576656e743a2064726166742d6469736361726465640a47697473746f72652d4f626a6563743a20303038636333633864303932613934663335646438346633653266393934323236613334373762330a47697473746f72652d4c61746573743a2076310a47697473746f72652d43757272656e743a2076310a47697473746f72652d48656c643a206e6f0a'),
	('abf4a885-f605-4c01-8a0a-66401c77b33d', 'c4670d3b666ccf3f7b28ba96215c824a9192ece2', 'commit', '\x7472656520346238323564633634326362366562396130363065353462663864363932383866626565343930340a617574686f7220746f6b656e3a6f776e65722d313162313938203c32633262653864342d663462312d343861652d626436632d36306236353136323231386240746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a636f6d6d69747465722067697473746f7265203c67697473746f7265406c6f63616c686f73743e2031373935373439353532202b303030300a0a43726561746564206e657665722d7075626c69736865640a0a47697473746f72652d4576656e743a20637265617465640a47697473746f72652d4c61746573743a206e6f6e650a47697473746f72652d43757272656e743a206e6f6e650a47697473746f72652d48656c643a206e6f0a'),
	('33510e01-b5ce-48da-add3-cac9b5f2a15b', '2a652ef10e5581566cf8489ca95c46a33aae12f0', 'commit', '\x7472656520346238323564633634326362366562396130363065353462663864363932383866626565343930340a617574686f7220746f6b656e3a7075626c69736865722d356664336261203c35323261353163302d303464322d343733362d623633622d38393436346234666533666640746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a636f6d6d69747465722067697473746f7265203c67697473746f7265406c6f63616c686f73743e2031373935373439353532202b303030300a0a4372656174656420616e792d72756c65730a0a47697473746f72652d4576656e743a20637265617465640a47697473746f72652d4e616d653a2022416e792d52756c6573220a47697473746f72652d4c61746573743a206e6f6e650a47697473746f72652d43757272656e743a206e6f6e650a47697473746f72652d48656c643a206e6f0a'),
	('33510e01-b5ce-48da-add3-cac9b5f2a15b', '4a9c81dc5d1b6f58c057e6d1dde84d303cb36708', 'tree', '\x31303036343420776f726b666c6f772e79616d6c00f58a41a8e133b38b705e8e3c33359044a5365bf1'),
	('33510e01-b5ce-48da-add3-cac9b5f2a15b', '8466d4f5c5edfeaddb2a27db5c6940c8e2d9f9f1', 'tag', '\x6f626a65637420643132323266323431326234633664626166633266303137643434636539303433303436613038380a7479706520636f6d6d69740a74616720616e792d72756c65732f76310a74616767657220746f6b656e3a7075626c69736865722d356664336261203c35323261353163302d303464322d343733362d623633622d38393436346234666533666640746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a0a5468652066697273740a'),
	('33510e01-b5ce-48da-add3-cac9b5f2a15b', '9bdc9d2d9fbd0058eda8c1e569c59ad41b48d7e9', 'commit', '\x7472656520346238323564633634326362366562396130363065353462663864363932383866626565343930340a706172656e7420326136353265663130653535383135363663663834383963613935633436613333616165313266300a617574686f7220746f6b656e3a7075626c69736865722d356664336261203c35323261353163302d303464322d343733362d623633622d38393436346234666533666640746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a636f6d6d69747465722067697473746f7265203c67697473746f7265406c6f63616c686f73743e2031373935373439353532202b303030300a0a5075626c697368656420616e792d72756c65732076310a0a5468652066697273740a0a47697473746f72652d4576656e743a207075626c69736865640a47697473746f72652d56657273696f6e3a2076310a47697473746f72652d4f626a6563743a20383436366434663563356564666561646462326132376462356336393430633865326439663966310a47697473746f72652d4c61746573743a2076310a47697473746f72652d43757272656e743a2076310a47697473746f72652d48656c643a206e6f0a'),
	('33510e01-b5ce-48da-add3-cac9b5f2a15b', 'd1222f2412b4c6dbafc2f017d44ce9043046a088', 'commit', '\x7472656520346139633831646335643162366635386330353765366431646465383464333033636233363730380a617574686f7220746f6b656e3a7075626c69736865722d356664336261203c35323261353163302d303464322d343733362d623633622d38393436346234666533666640746f6b656e732e67697473746f72653e2031373935373439353532202b303030300a636f6d6d69747465722067697473746f7265203c67697473746f7265406c6f63616c686f73743e2031373935373439353532202b303030300a0a437265617465207468652064726166740a'),
	('33510e01-b5ce-48da-add3-cac9b5f2a15b', 'f58a41a8e133b38b705e8e3c33359044a5365bf1', 'blob', '\x23205468652077617265686f7573652077616e747320697420736f2e0a6e616d653a204f726465722073796e630a6e6f6465733a0a20202d2069643a20686f6f6b0a20202020747970653a20776562686f6f6b0a20202020646174613a207b6c6162656c3a20486f6f6b2c20636f6e6669673a207b7d7d0a20202d2069643a2063616c6c0a20202020747970653a206874747043616c6c0a20202020646174613a207b6c6162656c3a2043616c6c2c20636f6e6669673a207b75726c3a202268747470733a2f2f612e6578616d706c652f222c206d6574686f643a20504f53547d7d0a65646765733a0a20202d207b69643a20652c20736f757263653a20686f6f6b2c207461726765743a2063616c6c7d0a');


--
-- Data for Name: members; Type: TABLE DATA; Schema: gitstore; Owner: gitstore
--



--
-- Data for Name: migrations; Type: TABLE DATA; Schema: gitstore; Owner: gitstore
--

INSERT INTO gitstore.migrations (number, name, sha256, applied_at) VALUES
	(1, '0001_roles.sql', '111cb9f5f599bb4769073f414ede390db70c6afafe99b8891f29867c12e84143', '2026-11-27 03:19:11.921065+00'),
	(2, '0002_tables.sql', 'c1484e56abe97b25b0608fd2551357b2a7ed1c0b7e89b9d6cbff652c05b182a1', '2026-11-27 03:19:11.923609+00'),
	(3, '0003_rights.sql', '6dccdccc8748bdc5ab077d4720965f3f09233adb6fc51e83791c9fb67554b34d', '2026-11-27 03:19:11.94608+00'),
	(4, '0004_immutability.sql', 'ef913642bd64af2dd947953a1c6a19216dfa95e3ee062448f1f1f20998ce5959', '2026-11-27 03:19:11.95463+00'),
	(5, '0005_deliveries.sql', '18336afbcecaf460f80a8aed495a026b86078e9efc2af17228c711ffd71c0e21', '2026-11-27 03:19:11.960104+00'),
	(6, '0006_sources.sql', '1d4c96c0afbeba8eae753e3417df3dcc242a5771cad7452c651006adb26a8c5b', '2026-11-27 03:19:11.982173+00'),
	(7, '0007_keeping.sql', 'a36d7573768f651336ed35da4cef46b7bb132d274b5474174281521dc314c01c', '2026-11-27 03:19:11.999243+00'),
	(8, '0008_authenticate.sql', '62204bb29301327d114dcaf49484a700f2f64e6191821f843a68b089bf99f3c5', '2026-11-27 03:19:12.00482+00'),
	(9, '0009_crashes.sql', '950a60eb63c10feab5d2a04264d1ee1ab8bd535ccea9e797d9b6d4b04fa2bd31', '2026-11-27 03:19:12.005877+00'),
	(10, '0010_version_states.sql', '7a6c0f0272c9d046d2b503232e6efeb9f59d19c2fc31cc54c351bc468b11d7f8', '2026-11-27 03:19:12.010876+00'),
	(11, '0011_recovery.sql', '6c62da599b2c7d062b08a99c31beba03bad4b05f0d2ae69d448023167d73253d', '2026-11-27 03:19:12.012868+00'),
	(12, '0012_forges.sql', '33d410d4a31799e7e9b4de21ae624182e69e2017df7f1be28fa99f6c181a7e79', '2026-11-27 03:19:12.020383+00');


--
-- Data for Name: number_marks; Type: TABLE DATA; Schema: gitstore; Owner: gitstore
--

INSERT INTO gitstore.number_marks (workflow_id, project_id, highest) VALUES
	('fc7a898c-0123-5551-939f-d9e84cdbe39b', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 3),
	('0a51fca1-9aff-5be3-bdfa-f424d1ae5be1', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 2),
	('04bd7cab-06db-526a-9ffc-9575228949b5', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 1),
	('a9c345de-b105-5e67-98c3-4d12a75b8cbf', '33510e01-b5ce-48da-add3-cac9b5f2a15b', 1);


--
-- Data for Name: projects; Type: TABLE DATA; Schema: gitstore; Owner: gitstore
--

INSERT INTO gitstore.projects (id, slug, name, owner, rules, created_at) VALUES
	('abf4a885-f605-4c01-8a0a-66401c77b33d', 'default', 'Default', NULL, 'meshhook', '2026-11-27 03:19:12.104141+00'),
	('33510e01-b5ce-48da-add3-cac9b5f2a15b', 'other', 'Other', NULL, 'any', '2026-11-27 03:19:12.104141+00');


--
-- Data for Name: receipts; Type: TABLE DATA; Schema: gitstore; Owner: gitstore
--



--
-- Data for Name: sources; Type: TABLE DATA; Schema: gitstore; Owner: gitstore
--

INSERT INTO gitstore.sources (id, project_id, url, forge, layout, direction, poll_seconds, paused, has_credential, sealed_credential, sealed_secret, created_at, due_at, full_sync, claim, claimed_until, tried_at, succeeded_at, failures, last_error, report, crashes, poisoned_at) VALUES
	('e09760f0-008d-4761-ada8-fc3e3135d97c', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 'https://a.example/a.git', 'any', 'refs', 'pull', 300, false, false, NULL, 'gAAAAABrCPawNLojhifHMqvx6U6-VY0Ih6YXEjlmrMogY0kKDVhv0HNsTTE7PR6HU66x3jz1cUZliIf2QvP3zJ35dmWB3Cl9JE0rnaGRvH-j2VkSn_8K5fO1NqBw5ct3NLYMbYZB3yP6YHeFGL68ni_TztvkP5JOywpbzey-kr5F-C4y0TNnRhn3Qlnn6v0tD9M-YRLxCY8YDUijSxJ5UG24bs1hsgU3eQ==', '2026-11-27 03:19:12.605828+00', '2026-11-27 03:19:12.605828+00', true, NULL, NULL, NULL, NULL, 0, NULL, '{}', 0, NULL);


--
-- Data for Name: subscription_secrets; Type: TABLE DATA; Schema: gitstore; Owner: gitstore
--

INSERT INTO gitstore.subscription_secrets (id, subscription_id, project_id, sealed, created_at, retires_at) VALUES
	('5d4d600a-c167-4c08-ac00-caa68ce1f515', '1038a71e-771a-4fbf-9f11-b0d58facffa3', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 'gAAAAABrCPawNLqRm4xggUaLmmTe1Jhe5pzeWj84NBIiL4__o02PL51S8w2KFrKMg74he__KLel04wk8S4YpltsyLnEI2cjdxae4HNYzLT9mB7HCNZTJe7-n0GSyHKuUTOnOmUzwSRFQZY5W2VBeqyS4NxMAHR7H3WquEgFK5geZK3mh8KQ9o-ljNjpctMIfcP-8UXGpLiCfP0jz0cooO5H0ikaTBWObEQ==', '2026-11-27 03:19:12.600885+00', NULL);


--
-- Data for Name: subscriptions; Type: TABLE DATA; Schema: gitstore; Owner: gitstore
--

INSERT INTO gitstore.subscriptions (id, project_id, url, events, state, reason, failing_since, quiet_until, created_at, updated_at) VALUES
	('1038a71e-771a-4fbf-9f11-b0d58facffa3', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 'https://a.example/hook', '{workflow.version.published,workflow.draft.updated,workflow.current.changed,workflow.version.diverged}', 'active', NULL, NULL, NULL, '2026-11-27 03:19:12.593027+00', '2026-11-27 03:19:12.593027+00');


--
-- Data for Name: upstream_refs; Type: TABLE DATA; Schema: gitstore; Owner: gitstore
--



--
-- Data for Name: workflow_versions; Type: TABLE DATA; Schema: gitstore; Owner: gitstore
--

INSERT INTO gitstore.workflow_versions (id, workflow_id, project_id, version_number, state, created_at, published_at, commit_sha, ref_oid, tree_sha, blob_sha, file_name, digest, definition, valid, message, author_name, author_email, published_by) VALUES
	('b4d0b945-3293-517a-861a-ac5df3f51abc', 'fc7a898c-0123-5551-939f-d9e84cdbe39b', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 1, 'published', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12+00', 'cc1bc3427382ee6d34771408614746ebb9d8e968', '96ed3cff47a9764ce655727b6376bfac00e474c8', '4a9c81dc5d1b6f58c057e6d1dde84d303cb36708', 'f58a41a8e133b38b705e8e3c33359044a5365bf1', 'workflow.yaml', 'sha256:95718d558a50364cb41814358b9b2d54a0d0743af63b31382bf3aad36f6dcd29', '{"name": "Order sync", "edges": [{"id": "e", "source": "hook", "target": "call"}], "nodes": [{"id": "hook", "data": {"label": "Hook", "config": {}}, "type": "webhook"}, {"id": "call", "data": {"label": "Call", "config": {"url": "https://a.example/", "method": "POST"}}, "type": "httpCall"}]}', true, 'The first', 'token:owner-11b198', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b@tokens.gitstore', 'token:owner-11b198'),
	('30aba615-7d0c-53db-a23d-6af4926459c8', 'fc7a898c-0123-5551-939f-d9e84cdbe39b', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 2, 'published', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12+00', '943f87b00641f9c79de7117b8e1bc345c57a5951', '01ccaab3916c21f047d5376ec1f60301ff905bf8', '5be379735ff6000e246efacb4e923e25676dcb56', '151f4b8c1258fa638c32fd4f5c4fd291c376735b', 'workflow.yaml', 'sha256:3cd8c5d2ce94b8695adb08a98eb542ea2b44827a8329878767e7b4708ebf2777', '{"edges": [{"id": "e", "source": "hook", "target": "call"}], "nodes": [{"id": "hook", "data": {"label": "Hook", "config": {}}, "type": "webhook"}, {"id": "call", "data": {"label": "Call", "config": {"url": "https://2.example/", "method": "POST"}}, "type": "httpCall"}]}', true, 'Publish order-sync v2', 'token:owner-11b198', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b@tokens.gitstore', 'token:owner-11b198'),
	('99c427a4-27bd-5512-8e67-2665c912b33e', 'fc7a898c-0123-5551-939f-d9e84cdbe39b', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 3, 'published', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12+00', '48fd377b658f2941573a7ad6a5502a0f36a2439c', '4a87ee6900550cbabf76ff02de1b8c951f9cfa56', '7add6ae2138c06972fc9624517b42823486f4c23', 'f05a2eba1171cbe946bb0d1b4d2fa6221ebd439b', 'workflow.yaml', 'sha256:6a398a881c5526812fdea60accfeda6606f24fb526cdca382267c8cacfdde709', '{"edges": [{"id": "e", "source": "hook", "target": "call"}], "nodes": [{"id": "hook", "data": {"label": "Hook", "config": {}}, "type": "webhook"}, {"id": "call", "data": {"label": "Call", "config": {"url": "https://3.example/", "method": "POST"}}, "type": "httpCall"}]}', true, 'Publish order-sync v3', 'token:owner-11b198', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b@tokens.gitstore', 'token:owner-11b198'),
	('f8bc90af-a25f-5846-ac4d-aa904d41eff4', 'fc7a898c-0123-5551-939f-d9e84cdbe39b', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 4, 'draft', '2026-11-27 03:19:12+00', NULL, '1d49e47af3f4bd1d9042886c47f48b4de4564454', '1d49e47af3f4bd1d9042886c47f48b4de4564454', '1c8ad253197ca502d36717862e6cb4ddae4a880e', '60e2518a1c2e1253fa1a333e485d1e31cbfe97b7', 'workflow.yaml', 'sha256:037e6e8965db7b8b1c8cfba01e8dfabee460cdf1fa2c0a78e972009dec72db21', '{"edges": [{"id": "e", "source": "hook", "target": "call"}], "nodes": [{"id": "hook", "data": {"label": "Hook", "config": {}}, "type": "webhook"}, {"id": "call", "data": {"label": "Call", "config": {"url": "https://draft.example/", "method": "POST"}}, "type": "httpCall"}]}', true, 'Not ready yet', 'token:owner-11b198', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b@tokens.gitstore', NULL),
	('436e4842-813b-565c-9570-2b761d5c9a8a', '0a51fca1-9aff-5be3-bdfa-f424d1ae5be1', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 1, 'published', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12+00', 'cc1bc3427382ee6d34771408614746ebb9d8e968', '76c17a69100cfc165ce5255043ec66151827e65e', '4a9c81dc5d1b6f58c057e6d1dde84d303cb36708', 'f58a41a8e133b38b705e8e3c33359044a5365bf1', 'workflow.yaml', 'sha256:95718d558a50364cb41814358b9b2d54a0d0743af63b31382bf3aad36f6dcd29', '{"name": "Order sync", "edges": [{"id": "e", "source": "hook", "target": "call"}], "nodes": [{"id": "hook", "data": {"label": "Hook", "config": {}}, "type": "webhook"}, {"id": "call", "data": {"label": "Call", "config": {"url": "https://a.example/", "method": "POST"}}, "type": "httpCall"}]}', true, 'The first', 'token:owner-11b198', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b@tokens.gitstore', 'token:owner-11b198'),
	('7c71a62c-3761-5f2b-a18b-4c399ea5368b', '0a51fca1-9aff-5be3-bdfa-f424d1ae5be1', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 2, 'published', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12+00', '943f87b00641f9c79de7117b8e1bc345c57a5951', 'de08d442b1108d353ef2eb356ea8bf8b627e9346', '5be379735ff6000e246efacb4e923e25676dcb56', '151f4b8c1258fa638c32fd4f5c4fd291c376735b', 'workflow.yaml', 'sha256:3cd8c5d2ce94b8695adb08a98eb542ea2b44827a8329878767e7b4708ebf2777', '{"edges": [{"id": "e", "source": "hook", "target": "call"}], "nodes": [{"id": "hook", "data": {"label": "Hook", "config": {}}, "type": "webhook"}, {"id": "call", "data": {"label": "Call", "config": {"url": "https://2.example/", "method": "POST"}}, "type": "httpCall"}]}', true, 'Publish held v2', 'token:owner-11b198', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b@tokens.gitstore', 'token:owner-11b198'),
	('2e573c86-6d83-5bc1-884c-f74d4beb1732', '04bd7cab-06db-526a-9ffc-9575228949b5', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 1, 'published', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12+00', 'cc1bc3427382ee6d34771408614746ebb9d8e968', 'a1f7a8b56947db9c8f3914ddd0051fa1a72054ac', '4a9c81dc5d1b6f58c057e6d1dde84d303cb36708', 'f58a41a8e133b38b705e8e3c33359044a5365bf1', 'workflow.yaml', 'sha256:95718d558a50364cb41814358b9b2d54a0d0743af63b31382bf3aad36f6dcd29', '{"name": "Order sync", "edges": [{"id": "e", "source": "hook", "target": "call"}], "nodes": [{"id": "hook", "data": {"label": "Hook", "config": {}}, "type": "webhook"}, {"id": "call", "data": {"label": "Call", "config": {"url": "https://a.example/", "method": "POST"}}, "type": "httpCall"}]}', true, 'The first', 'token:owner-11b198', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b@tokens.gitstore', 'token:owner-11b198'),
	('86d7f4d8-16f9-5a79-b2f5-28115ef8ae2b', '04bd7cab-06db-526a-9ffc-9575228949b5', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 2, 'discarded', '2026-11-27 03:19:12+00', NULL, '008cc3c8d092a94f35dd84f3e2f994226a3477b3', '008cc3c8d092a94f35dd84f3e2f994226a3477b3', '4a9c81dc5d1b6f58c057e6d1dde84d303cb36708', 'f58a41a8e133b38b705e8e3c33359044a5365bf1', 'workflow.yaml', 'sha256:95718d558a50364cb41814358b9b2d54a0d0743af63b31382bf3aad36f6dcd29', '{"name": "Order sync", "edges": [{"id": "e", "source": "hook", "target": "call"}], "nodes": [{"id": "hook", "data": {"label": "Hook", "config": {}}, "type": "webhook"}, {"id": "call", "data": {"label": "Call", "config": {"url": "https://a.example/", "method": "POST"}}, "type": "httpCall"}]}', true, 'Begin a draft', 'token:owner-11b198', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b@tokens.gitstore', NULL),
	('7d9490b1-5842-5e0e-8109-49086218028c', '44d0d199-7425-56fb-8fc6-0e3ede45e307', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 1, 'draft', '2026-11-27 03:19:12+00', NULL, '6e05fb4cad3927f75ee6e754061f197d0f23fb41', '6e05fb4cad3927f75ee6e754061f197d0f23fb41', 'ca5e02ccc5fc550baa276da043d4db3bc35d3d44', '85f4622772a3e59ac733c25705e0e63222e6af9c', 'workflow.yaml', 'sha256:14e232719ea7850209c6ad68be11fe685b66a394c5ca09367403e8ef155ff0d9', '{"edges": [{"id": "e", "source": "hook", "target": "call"}], "nodes": [{"id": "hook", "data": {"label": "Hook", "config": {}}, "type": "webhook"}, {"id": "call", "data": {"label": "Call", "config": {"url": "", "method": "POST"}}, "type": "httpCall"}]}', false, 'Create the draft', 'token:owner-11b198', '2c2be8d4-f4b1-48ae-bd6c-60b65162218b@tokens.gitstore', NULL),
	('31c03281-746a-542d-87bd-8b7a934464e0', 'a9c345de-b105-5e67-98c3-4d12a75b8cbf', '33510e01-b5ce-48da-add3-cac9b5f2a15b', 1, 'published', '2026-11-27 03:19:12+00', '2026-11-27 03:19:12+00', 'd1222f2412b4c6dbafc2f017d44ce9043046a088', '8466d4f5c5edfeaddb2a27db5c6940c8e2d9f9f1', '4a9c81dc5d1b6f58c057e6d1dde84d303cb36708', 'f58a41a8e133b38b705e8e3c33359044a5365bf1', 'workflow.yaml', 'sha256:4cfa74a06f97fe0cca7cc7b548e0192a219cf80baa3611f970e773c86da1f7b3', '{"name": "Order sync", "edges": [{"id": "e", "source": "hook", "target": "call"}], "nodes": [{"id": "hook", "data": {"label": "Hook", "config": {}}, "type": "webhook"}, {"id": "call", "data": {"label": "Call", "config": {"url": "https://a.example/", "method": "POST"}}, "type": "httpCall"}]}', true, 'The first', 'token:publisher-5fd3ba', '522a51c0-04d2-4736-b63b-89464b4fe3ff@tokens.gitstore', 'token:publisher-5fd3ba');


--
-- Data for Name: workflows; Type: TABLE DATA; Schema: gitstore; Owner: gitstore
--

INSERT INTO gitstore.workflows (id, project_id, slug, name, description, current_version_id, held, created_at, updated_at, latest_number, given_name, given_description, draft_commit, ledger_oid) VALUES
	('fc7a898c-0123-5551-939f-d9e84cdbe39b', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 'order-sync', 'Order-Sync', '', '99c427a4-27bd-5512-8e67-2665c912b33e', false, '2026-11-27 03:19:12+00', '2026-11-27 03:19:12+00', 3, 'Order-Sync', NULL, '1d49e47af3f4bd1d9042886c47f48b4de4564454', '24adc2f4684e84a61c0e8076290badac966a95e3'),
	('0a51fca1-9aff-5be3-bdfa-f424d1ae5be1', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 'held', 'Held', '', '436e4842-813b-565c-9570-2b761d5c9a8a', true, '2026-11-27 03:19:12+00', '2026-11-27 03:19:12+00', 2, 'Held', NULL, '943f87b00641f9c79de7117b8e1bc345c57a5951', '04ef505949970e9938bcd1d98a5d4add138e8c10'),
	('04bd7cab-06db-526a-9ffc-9575228949b5', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 'discarded', 'Discarded', '', '2e573c86-6d83-5bc1-884c-f74d4beb1732', false, '2026-11-27 03:19:12+00', '2026-11-27 03:19:12+00', 1, 'Discarded', NULL, NULL, 'dcf39b19946bd0f3519e6a7848e7557fd8f403ba'),
	('44d0d199-7425-56fb-8fc6-0e3ede45e307', 'abf4a885-f605-4c01-8a0a-66401c77b33d', 'never-published', 'never-published', '', NULL, false, '2026-11-27 03:19:12+00', '2026-11-27 03:19:12+00', 0, NULL, NULL, '6e05fb4cad3927f75ee6e754061f197d0f23fb41', 'c4670d3b666ccf3f7b28ba96215c824a9192ece2'),
	('a9c345de-b105-5e67-98c3-4d12a75b8cbf', '33510e01-b5ce-48da-add3-cac9b5f2a15b', 'any-rules', 'Any-Rules', '', '31c03281-746a-542d-87bd-8b7a934464e0', false, '2026-11-27 03:19:12+00', '2026-11-27 03:19:12+00', 1, 'Any-Rules', NULL, 'd1222f2412b4c6dbafc2f017d44ce9043046a088', '9bdc9d2d9fbd0058eda8c1e569c59ad41b48d7e9');


--
-- Name: access_tokens access_tokens_pkey; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.access_tokens
    ADD CONSTRAINT access_tokens_pkey PRIMARY KEY (id);


--
-- Name: access_tokens access_tokens_sha256_key; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.access_tokens
    ADD CONSTRAINT access_tokens_sha256_key UNIQUE (sha256);


--
-- Name: audit_log audit_log_pkey; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.audit_log
    ADD CONSTRAINT audit_log_pkey PRIMARY KEY (id);


--
-- Name: deliveries deliveries_event_key; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.deliveries
    ADD CONSTRAINT deliveries_event_key UNIQUE (subscription_id, event_id);


--
-- Name: deliveries deliveries_pkey; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.deliveries
    ADD CONSTRAINT deliveries_pkey PRIMARY KEY (id);


--
-- Name: deliveries deliveries_project_key; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.deliveries
    ADD CONSTRAINT deliveries_project_key UNIQUE (id, project_id);


--
-- Name: delivery_attempts delivery_attempts_pkey; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.delivery_attempts
    ADD CONSTRAINT delivery_attempts_pkey PRIMARY KEY (delivery_id, number);


--
-- Name: divergences divergences_pkey; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.divergences
    ADD CONSTRAINT divergences_pkey PRIMARY KEY (id);


--
-- Name: event_queue event_queue_pkey; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.event_queue
    ADD CONSTRAINT event_queue_pkey PRIMARY KEY (event_id);


--
-- Name: events events_pkey; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (id);


--
-- Name: git_objects git_objects_pkey; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.git_objects
    ADD CONSTRAINT git_objects_pkey PRIMARY KEY (project_id, oid);


--
-- Name: members members_pkey; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.members
    ADD CONSTRAINT members_pkey PRIMARY KEY (project_id, user_id);


--
-- Name: migrations migrations_pkey; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.migrations
    ADD CONSTRAINT migrations_pkey PRIMARY KEY (number);


--
-- Name: number_marks number_marks_pkey; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.number_marks
    ADD CONSTRAINT number_marks_pkey PRIMARY KEY (workflow_id);


--
-- Name: projects projects_pkey; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.projects
    ADD CONSTRAINT projects_pkey PRIMARY KEY (id);


--
-- Name: projects projects_slug_key; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.projects
    ADD CONSTRAINT projects_slug_key UNIQUE (slug);


--
-- Name: receipts receipts_pkey; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.receipts
    ADD CONSTRAINT receipts_pkey PRIMARY KEY (source_id, delivery);


--
-- Name: sources sources_pkey; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.sources
    ADD CONSTRAINT sources_pkey PRIMARY KEY (id);


--
-- Name: sources sources_project_key; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.sources
    ADD CONSTRAINT sources_project_key UNIQUE (id, project_id);


--
-- Name: sources sources_url_key; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.sources
    ADD CONSTRAINT sources_url_key UNIQUE (project_id, url);


--
-- Name: subscription_secrets subscription_secrets_pkey; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.subscription_secrets
    ADD CONSTRAINT subscription_secrets_pkey PRIMARY KEY (id);


--
-- Name: subscriptions subscriptions_pkey; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.subscriptions
    ADD CONSTRAINT subscriptions_pkey PRIMARY KEY (id);


--
-- Name: subscriptions subscriptions_project_key; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.subscriptions
    ADD CONSTRAINT subscriptions_project_key UNIQUE (id, project_id);


--
-- Name: upstream_refs upstream_refs_pkey; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.upstream_refs
    ADD CONSTRAINT upstream_refs_pkey PRIMARY KEY (source_id, ref);


--
-- Name: workflow_versions workflow_versions_number_key; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.workflow_versions
    ADD CONSTRAINT workflow_versions_number_key UNIQUE (workflow_id, version_number);


--
-- Name: workflow_versions workflow_versions_pkey; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.workflow_versions
    ADD CONSTRAINT workflow_versions_pkey PRIMARY KEY (id);


--
-- Name: workflows workflows_pkey; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.workflows
    ADD CONSTRAINT workflows_pkey PRIMARY KEY (id);


--
-- Name: workflows workflows_project_key; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.workflows
    ADD CONSTRAINT workflows_project_key UNIQUE (id, project_id);


--
-- Name: workflows workflows_slug_key; Type: CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.workflows
    ADD CONSTRAINT workflows_slug_key UNIQUE (project_id, slug);


--
-- Name: access_tokens_project; Type: INDEX; Schema: gitstore; Owner: gitstore
--

CREATE INDEX access_tokens_project ON gitstore.access_tokens USING btree (project_id);


--
-- Name: audit_log_project; Type: INDEX; Schema: gitstore; Owner: gitstore
--

CREATE INDEX audit_log_project ON gitstore.audit_log USING btree (project_id, at, id);


--
-- Name: deliveries_crashed; Type: INDEX; Schema: gitstore; Owner: gitstore
--

CREATE INDEX deliveries_crashed ON gitstore.deliveries USING btree (due_at) WHERE ((crashes > 0) AND (due_at IS NOT NULL));


--
-- Name: deliveries_due; Type: INDEX; Schema: gitstore; Owner: gitstore
--

CREATE INDEX deliveries_due ON gitstore.deliveries USING btree (subscription_id, due_at) WHERE (due_at IS NOT NULL);


--
-- Name: deliveries_ended; Type: INDEX; Schema: gitstore; Owner: gitstore
--

CREATE INDEX deliveries_ended ON gitstore.deliveries USING btree (ended_at) WHERE (ended_at IS NOT NULL);


--
-- Name: deliveries_held; Type: INDEX; Schema: gitstore; Owner: gitstore
--

CREATE INDEX deliveries_held ON gitstore.deliveries USING btree (subscription_id) WHERE (state = 'pending'::text);


--
-- Name: deliveries_kept_back; Type: INDEX; Schema: gitstore; Owner: gitstore
--

CREATE INDEX deliveries_kept_back ON gitstore.deliveries USING btree (created_at) WHERE ((state = 'pending'::text) AND (due_at IS NULL));


--
-- Name: deliveries_next; Type: INDEX; Schema: gitstore; Owner: gitstore
--

CREATE INDEX deliveries_next ON gitstore.deliveries USING btree (due_at) WHERE (due_at IS NOT NULL);


--
-- Name: deliveries_project; Type: INDEX; Schema: gitstore; Owner: gitstore
--

CREATE INDEX deliveries_project ON gitstore.deliveries USING btree (project_id, created_at DESC, id DESC);


--
-- Name: deliveries_subscription; Type: INDEX; Schema: gitstore; Owner: gitstore
--

CREATE INDEX deliveries_subscription ON gitstore.deliveries USING btree (subscription_id, created_at DESC, id DESC);


--
-- Name: delivery_attempts_project; Type: INDEX; Schema: gitstore; Owner: gitstore
--

CREATE INDEX delivery_attempts_project ON gitstore.delivery_attempts USING btree (project_id);


--
-- Name: divergences_open_key; Type: INDEX; Schema: gitstore; Owner: gitstore
--

CREATE UNIQUE INDEX divergences_open_key ON gitstore.divergences USING btree (source_id, ref) WHERE (resolved_at IS NULL);


--
-- Name: divergences_source; Type: INDEX; Schema: gitstore; Owner: gitstore
--

CREATE INDEX divergences_source ON gitstore.divergences USING btree (source_id, first_seen_at);


--
-- Name: events_project; Type: INDEX; Schema: gitstore; Owner: gitstore
--

CREATE INDEX events_project ON gitstore.events USING btree (project_id, recorded_at, id);


--
-- Name: members_user; Type: INDEX; Schema: gitstore; Owner: gitstore
--

CREATE INDEX members_user ON gitstore.members USING btree (user_id);


--
-- Name: number_marks_project; Type: INDEX; Schema: gitstore; Owner: gitstore
--

CREATE INDEX number_marks_project ON gitstore.number_marks USING btree (project_id);


--
-- Name: projects_owner; Type: INDEX; Schema: gitstore; Owner: gitstore
--

CREATE INDEX projects_owner ON gitstore.projects USING btree (owner);


--
-- Name: receipts_received; Type: INDEX; Schema: gitstore; Owner: gitstore
--

CREATE INDEX receipts_received ON gitstore.receipts USING btree (received_at);


--
-- Name: sources_claimed; Type: INDEX; Schema: gitstore; Owner: gitstore
--

CREATE INDEX sources_claimed ON gitstore.sources USING btree (claimed_until) WHERE (claimed_until IS NOT NULL);


--
-- Name: sources_due; Type: INDEX; Schema: gitstore; Owner: gitstore
--

CREATE INDEX sources_due ON gitstore.sources USING btree (due_at) WHERE (NOT paused);


--
-- Name: subscription_secrets_subscription; Type: INDEX; Schema: gitstore; Owner: gitstore
--

CREATE INDEX subscription_secrets_subscription ON gitstore.subscription_secrets USING btree (subscription_id);


--
-- Name: subscriptions_project; Type: INDEX; Schema: gitstore; Owner: gitstore
--

CREATE INDEX subscriptions_project ON gitstore.subscriptions USING btree (project_id, created_at, id);


--
-- Name: workflow_versions_draft_key; Type: INDEX; Schema: gitstore; Owner: gitstore
--

CREATE UNIQUE INDEX workflow_versions_draft_key ON gitstore.workflow_versions USING btree (workflow_id) WHERE (state = 'draft'::text);


--
-- Name: workflow_versions_project; Type: INDEX; Schema: gitstore; Owner: gitstore
--

CREATE INDEX workflow_versions_project ON gitstore.workflow_versions USING btree (project_id);


--
-- Name: number_marks mark_grows; Type: TRIGGER; Schema: gitstore; Owner: gitstore
--

CREATE TRIGGER mark_grows BEFORE UPDATE ON gitstore.number_marks FOR EACH ROW WHEN (((new.highest <= old.highest) OR (new.workflow_id <> old.workflow_id) OR (new.project_id <> old.project_id))) EXECUTE FUNCTION gitstore.refuse_change();


--
-- Name: number_marks mark_stays; Type: TRIGGER; Schema: gitstore; Owner: gitstore
--

CREATE TRIGGER mark_stays BEFORE DELETE ON gitstore.number_marks FOR EACH ROW EXECUTE FUNCTION gitstore.refuse_change();


--
-- Name: audit_log not_truncated; Type: TRIGGER; Schema: gitstore; Owner: gitstore
--

CREATE TRIGGER not_truncated BEFORE TRUNCATE ON gitstore.audit_log FOR EACH STATEMENT EXECUTE FUNCTION gitstore.refuse_change();


--
-- Name: delivery_attempts not_truncated; Type: TRIGGER; Schema: gitstore; Owner: gitstore
--

CREATE TRIGGER not_truncated BEFORE TRUNCATE ON gitstore.delivery_attempts FOR EACH STATEMENT EXECUTE FUNCTION gitstore.refuse_change();


--
-- Name: events not_truncated; Type: TRIGGER; Schema: gitstore; Owner: gitstore
--

CREATE TRIGGER not_truncated BEFORE TRUNCATE ON gitstore.events FOR EACH STATEMENT EXECUTE FUNCTION gitstore.refuse_change();


--
-- Name: git_objects not_truncated; Type: TRIGGER; Schema: gitstore; Owner: gitstore
--

CREATE TRIGGER not_truncated BEFORE TRUNCATE ON gitstore.git_objects FOR EACH STATEMENT EXECUTE FUNCTION gitstore.refuse_change();


--
-- Name: number_marks not_truncated; Type: TRIGGER; Schema: gitstore; Owner: gitstore
--

CREATE TRIGGER not_truncated BEFORE TRUNCATE ON gitstore.number_marks FOR EACH STATEMENT EXECUTE FUNCTION gitstore.refuse_change();


--
-- Name: workflow_versions not_truncated; Type: TRIGGER; Schema: gitstore; Owner: gitstore
--

CREATE TRIGGER not_truncated BEFORE TRUNCATE ON gitstore.workflow_versions FOR EACH STATEMENT EXECUTE FUNCTION gitstore.refuse_change();


--
-- Name: workflow_versions published_stays; Type: TRIGGER; Schema: gitstore; Owner: gitstore
--

CREATE TRIGGER published_stays BEFORE DELETE OR UPDATE ON gitstore.workflow_versions FOR EACH ROW WHEN ((old.state = ANY (ARRAY['published'::text, 'lost'::text]))) EXECUTE FUNCTION gitstore.refuse_change();


--
-- Name: delivery_attempts recorded_is_kept; Type: TRIGGER; Schema: gitstore; Owner: gitstore
--

CREATE TRIGGER recorded_is_kept BEFORE DELETE ON gitstore.delivery_attempts FOR EACH ROW WHEN ((CURRENT_USER <> 'gitstore_mirror'::name)) EXECUTE FUNCTION gitstore.refuse_change();


--
-- Name: audit_log recorded_stays; Type: TRIGGER; Schema: gitstore; Owner: gitstore
--

CREATE TRIGGER recorded_stays BEFORE DELETE OR UPDATE ON gitstore.audit_log FOR EACH ROW EXECUTE FUNCTION gitstore.refuse_change();


--
-- Name: delivery_attempts recorded_stays; Type: TRIGGER; Schema: gitstore; Owner: gitstore
--

CREATE TRIGGER recorded_stays BEFORE UPDATE ON gitstore.delivery_attempts FOR EACH ROW EXECUTE FUNCTION gitstore.refuse_change();


--
-- Name: events recorded_stays; Type: TRIGGER; Schema: gitstore; Owner: gitstore
--

CREATE TRIGGER recorded_stays BEFORE DELETE OR UPDATE ON gitstore.events FOR EACH ROW EXECUTE FUNCTION gitstore.refuse_change();


--
-- Name: git_objects recorded_stays; Type: TRIGGER; Schema: gitstore; Owner: gitstore
--

CREATE TRIGGER recorded_stays BEFORE DELETE OR UPDATE ON gitstore.git_objects FOR EACH ROW EXECUTE FUNCTION gitstore.refuse_change();


--
-- Name: access_tokens access_tokens_project_id_fkey; Type: FK CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.access_tokens
    ADD CONSTRAINT access_tokens_project_id_fkey FOREIGN KEY (project_id) REFERENCES gitstore.projects(id);


--
-- Name: audit_log audit_log_project_id_fkey; Type: FK CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.audit_log
    ADD CONSTRAINT audit_log_project_id_fkey FOREIGN KEY (project_id) REFERENCES gitstore.projects(id);


--
-- Name: deliveries deliveries_subscription_fkey; Type: FK CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.deliveries
    ADD CONSTRAINT deliveries_subscription_fkey FOREIGN KEY (subscription_id, project_id) REFERENCES gitstore.subscriptions(id, project_id);


--
-- Name: delivery_attempts delivery_attempts_delivery_fkey; Type: FK CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.delivery_attempts
    ADD CONSTRAINT delivery_attempts_delivery_fkey FOREIGN KEY (delivery_id, project_id) REFERENCES gitstore.deliveries(id, project_id);


--
-- Name: divergences divergences_source_id_project_id_fkey; Type: FK CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.divergences
    ADD CONSTRAINT divergences_source_id_project_id_fkey FOREIGN KEY (source_id, project_id) REFERENCES gitstore.sources(id, project_id) ON DELETE CASCADE;


--
-- Name: event_queue event_queue_event_id_fkey; Type: FK CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.event_queue
    ADD CONSTRAINT event_queue_event_id_fkey FOREIGN KEY (event_id) REFERENCES gitstore.events(id);


--
-- Name: events events_project_id_fkey; Type: FK CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.events
    ADD CONSTRAINT events_project_id_fkey FOREIGN KEY (project_id) REFERENCES gitstore.projects(id);


--
-- Name: git_objects git_objects_project_id_fkey; Type: FK CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.git_objects
    ADD CONSTRAINT git_objects_project_id_fkey FOREIGN KEY (project_id) REFERENCES gitstore.projects(id);


--
-- Name: members members_project_id_fkey; Type: FK CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.members
    ADD CONSTRAINT members_project_id_fkey FOREIGN KEY (project_id) REFERENCES gitstore.projects(id);


--
-- Name: number_marks number_marks_project_id_fkey; Type: FK CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.number_marks
    ADD CONSTRAINT number_marks_project_id_fkey FOREIGN KEY (project_id) REFERENCES gitstore.projects(id);


--
-- Name: receipts receipts_source_id_project_id_fkey; Type: FK CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.receipts
    ADD CONSTRAINT receipts_source_id_project_id_fkey FOREIGN KEY (source_id, project_id) REFERENCES gitstore.sources(id, project_id) ON DELETE CASCADE;


--
-- Name: sources sources_project_id_fkey; Type: FK CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.sources
    ADD CONSTRAINT sources_project_id_fkey FOREIGN KEY (project_id) REFERENCES gitstore.projects(id);


--
-- Name: subscription_secrets subscription_secrets_subscription_fkey; Type: FK CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.subscription_secrets
    ADD CONSTRAINT subscription_secrets_subscription_fkey FOREIGN KEY (subscription_id, project_id) REFERENCES gitstore.subscriptions(id, project_id);


--
-- Name: subscriptions subscriptions_project_id_fkey; Type: FK CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.subscriptions
    ADD CONSTRAINT subscriptions_project_id_fkey FOREIGN KEY (project_id) REFERENCES gitstore.projects(id);


--
-- Name: upstream_refs upstream_refs_source_id_project_id_fkey; Type: FK CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.upstream_refs
    ADD CONSTRAINT upstream_refs_source_id_project_id_fkey FOREIGN KEY (source_id, project_id) REFERENCES gitstore.sources(id, project_id) ON DELETE CASCADE;


--
-- Name: workflow_versions workflow_versions_workflow_fkey; Type: FK CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.workflow_versions
    ADD CONSTRAINT workflow_versions_workflow_fkey FOREIGN KEY (workflow_id, project_id) REFERENCES gitstore.workflows(id, project_id);


--
-- Name: workflows workflows_current_fkey; Type: FK CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.workflows
    ADD CONSTRAINT workflows_current_fkey FOREIGN KEY (current_version_id) REFERENCES gitstore.workflow_versions(id) DEFERRABLE INITIALLY DEFERRED;


--
-- Name: workflows workflows_project_id_fkey; Type: FK CONSTRAINT; Schema: gitstore; Owner: gitstore
--

ALTER TABLE ONLY gitstore.workflows
    ADD CONSTRAINT workflows_project_id_fkey FOREIGN KEY (project_id) REFERENCES gitstore.projects(id);


--
-- Name: access_tokens; Type: ROW SECURITY; Schema: gitstore; Owner: gitstore
--

ALTER TABLE gitstore.access_tokens ENABLE ROW LEVEL SECURITY;

--
-- Name: audit_log; Type: ROW SECURITY; Schema: gitstore; Owner: gitstore
--

ALTER TABLE gitstore.audit_log ENABLE ROW LEVEL SECURITY;

--
-- Name: deliveries changed; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY changed ON gitstore.deliveries FOR UPDATE TO gitstore_user USING ((project_id = ANY (( SELECT gitstore.owned_projects() AS owned_projects)::uuid[])));


--
-- Name: divergences changed; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY changed ON gitstore.divergences FOR UPDATE TO gitstore_user USING ((project_id = ANY (( SELECT gitstore.owned_projects() AS owned_projects)::uuid[])));


--
-- Name: sources changed; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY changed ON gitstore.sources FOR UPDATE TO gitstore_user USING ((project_id = ANY (( SELECT gitstore.owned_projects() AS owned_projects)::uuid[])));


--
-- Name: subscription_secrets changed; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY changed ON gitstore.subscription_secrets FOR UPDATE TO gitstore_user USING ((project_id = ANY (( SELECT gitstore.owned_projects() AS owned_projects)::uuid[])));


--
-- Name: subscriptions changed; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY changed ON gitstore.subscriptions FOR UPDATE TO gitstore_user USING ((project_id = ANY (( SELECT gitstore.owned_projects() AS owned_projects)::uuid[])));


--
-- Name: deliveries; Type: ROW SECURITY; Schema: gitstore; Owner: gitstore
--

ALTER TABLE gitstore.deliveries ENABLE ROW LEVEL SECURITY;

--
-- Name: delivery_attempts; Type: ROW SECURITY; Schema: gitstore; Owner: gitstore
--

ALTER TABLE gitstore.delivery_attempts ENABLE ROW LEVEL SECURITY;

--
-- Name: divergences; Type: ROW SECURITY; Schema: gitstore; Owner: gitstore
--

ALTER TABLE gitstore.divergences ENABLE ROW LEVEL SECURITY;

--
-- Name: deliveries ended; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY ended ON gitstore.deliveries AS RESTRICTIVE FOR DELETE TO gitstore_mirror USING (((CURRENT_USER <> 'gitstore_mirror'::name) OR (ended_at < (now() - '23:00:00'::interval))));


--
-- Name: delivery_attempts ended; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY ended ON gitstore.delivery_attempts AS RESTRICTIVE FOR DELETE TO gitstore_mirror USING (((CURRENT_USER <> 'gitstore_mirror'::name) OR (EXISTS ( SELECT
   FROM gitstore.deliveries d
  WHERE ((d.id = delivery_attempts.delivery_id) AND (d.ended_at < (now() - '23:00:00'::interval)))))));


--
-- Name: event_queue; Type: ROW SECURITY; Schema: gitstore; Owner: gitstore
--

ALTER TABLE gitstore.event_queue ENABLE ROW LEVEL SECURITY;

--
-- Name: events; Type: ROW SECURITY; Schema: gitstore; Owner: gitstore
--

ALTER TABLE gitstore.events ENABLE ROW LEVEL SECURITY;

--
-- Name: git_objects; Type: ROW SECURITY; Schema: gitstore; Owner: gitstore
--

ALTER TABLE gitstore.git_objects ENABLE ROW LEVEL SECURITY;

--
-- Name: access_tokens lookup; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY lookup ON gitstore.access_tokens TO gitstore_lookup USING (true) WITH CHECK (true);


--
-- Name: members lookup; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY lookup ON gitstore.members TO gitstore_lookup USING (true) WITH CHECK (true);


--
-- Name: projects lookup; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY lookup ON gitstore.projects TO gitstore_lookup USING (true) WITH CHECK (true);


--
-- Name: access_tokens made; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY made ON gitstore.access_tokens FOR INSERT TO gitstore_user WITH CHECK ((project_id = ANY (( SELECT gitstore.owned_projects() AS owned_projects)::uuid[])));


--
-- Name: deliveries made; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY made ON gitstore.deliveries FOR INSERT TO gitstore_user WITH CHECK ((project_id = ANY (( SELECT gitstore.owned_projects() AS owned_projects)::uuid[])));


--
-- Name: sources made; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY made ON gitstore.sources FOR INSERT TO gitstore_user WITH CHECK ((project_id = ANY (( SELECT gitstore.owned_projects() AS owned_projects)::uuid[])));


--
-- Name: subscription_secrets made; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY made ON gitstore.subscription_secrets FOR INSERT TO gitstore_user WITH CHECK ((project_id = ANY (( SELECT gitstore.owned_projects() AS owned_projects)::uuid[])));


--
-- Name: subscriptions made; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY made ON gitstore.subscriptions FOR INSERT TO gitstore_user WITH CHECK ((project_id = ANY (( SELECT gitstore.owned_projects() AS owned_projects)::uuid[])));


--
-- Name: members; Type: ROW SECURITY; Schema: gitstore; Owner: gitstore
--

ALTER TABLE gitstore.members ENABLE ROW LEVEL SECURITY;

--
-- Name: audit_log mirror; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY mirror ON gitstore.audit_log TO gitstore_mirror USING (true) WITH CHECK (true);


--
-- Name: deliveries mirror; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY mirror ON gitstore.deliveries TO gitstore_mirror USING (true) WITH CHECK (true);


--
-- Name: delivery_attempts mirror; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY mirror ON gitstore.delivery_attempts TO gitstore_mirror USING (true) WITH CHECK (true);


--
-- Name: divergences mirror; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY mirror ON gitstore.divergences TO gitstore_mirror USING (true) WITH CHECK (true);


--
-- Name: event_queue mirror; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY mirror ON gitstore.event_queue TO gitstore_mirror USING (true) WITH CHECK (true);


--
-- Name: events mirror; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY mirror ON gitstore.events TO gitstore_mirror USING (true) WITH CHECK (true);


--
-- Name: git_objects mirror; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY mirror ON gitstore.git_objects TO gitstore_mirror USING (true) WITH CHECK (true);


--
-- Name: number_marks mirror; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY mirror ON gitstore.number_marks TO gitstore_mirror USING (true) WITH CHECK (true);


--
-- Name: projects mirror; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY mirror ON gitstore.projects TO gitstore_mirror USING (true) WITH CHECK (true);


--
-- Name: receipts mirror; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY mirror ON gitstore.receipts TO gitstore_mirror USING (true) WITH CHECK (true);


--
-- Name: sources mirror; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY mirror ON gitstore.sources TO gitstore_mirror USING (true) WITH CHECK (true);


--
-- Name: subscription_secrets mirror; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY mirror ON gitstore.subscription_secrets TO gitstore_mirror USING (true) WITH CHECK (true);


--
-- Name: subscriptions mirror; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY mirror ON gitstore.subscriptions TO gitstore_mirror USING (true) WITH CHECK (true);


--
-- Name: upstream_refs mirror; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY mirror ON gitstore.upstream_refs TO gitstore_mirror USING (true) WITH CHECK (true);


--
-- Name: workflow_versions mirror; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY mirror ON gitstore.workflow_versions TO gitstore_mirror USING (true) WITH CHECK (true);


--
-- Name: workflows mirror; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY mirror ON gitstore.workflows TO gitstore_mirror USING (true) WITH CHECK (true);


--
-- Name: audit_log noted; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY noted ON gitstore.audit_log FOR INSERT TO gitstore_user WITH CHECK (((actor_id = (( SELECT gitstore.subject() AS subject))::text) AND (project_id = ANY (( SELECT gitstore.visible_projects() AS visible_projects)::uuid[]))));


--
-- Name: number_marks; Type: ROW SECURITY; Schema: gitstore; Owner: gitstore
--

ALTER TABLE gitstore.number_marks ENABLE ROW LEVEL SECURITY;

--
-- Name: access_tokens owned; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY owned ON gitstore.access_tokens FOR SELECT USING ((project_id = ANY (( SELECT gitstore.owned_projects() AS owned_projects)::uuid[])));


--
-- Name: audit_log owned; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY owned ON gitstore.audit_log FOR SELECT USING ((project_id = ANY (( SELECT gitstore.owned_projects() AS owned_projects)::uuid[])));


--
-- Name: deliveries owned; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY owned ON gitstore.deliveries FOR SELECT USING ((project_id = ANY (( SELECT gitstore.owned_projects() AS owned_projects)::uuid[])));


--
-- Name: delivery_attempts owned; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY owned ON gitstore.delivery_attempts FOR SELECT USING ((project_id = ANY (( SELECT gitstore.owned_projects() AS owned_projects)::uuid[])));


--
-- Name: divergences owned; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY owned ON gitstore.divergences FOR SELECT USING ((project_id = ANY (( SELECT gitstore.owned_projects() AS owned_projects)::uuid[])));


--
-- Name: members owned; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY owned ON gitstore.members FOR SELECT USING (((user_id = ( SELECT gitstore.subject() AS subject)) OR (project_id = ANY (( SELECT gitstore.owned_projects() AS owned_projects)::uuid[]))));


--
-- Name: sources owned; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY owned ON gitstore.sources FOR SELECT USING ((project_id = ANY (( SELECT gitstore.owned_projects() AS owned_projects)::uuid[])));


--
-- Name: subscription_secrets owned; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY owned ON gitstore.subscription_secrets FOR SELECT USING ((project_id = ANY (( SELECT gitstore.owned_projects() AS owned_projects)::uuid[])));


--
-- Name: subscriptions owned; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY owned ON gitstore.subscriptions FOR SELECT USING ((project_id = ANY (( SELECT gitstore.owned_projects() AS owned_projects)::uuid[])));


--
-- Name: projects; Type: ROW SECURITY; Schema: gitstore; Owner: gitstore
--

ALTER TABLE gitstore.projects ENABLE ROW LEVEL SECURITY;

--
-- Name: receipts; Type: ROW SECURITY; Schema: gitstore; Owner: gitstore
--

ALTER TABLE gitstore.receipts ENABLE ROW LEVEL SECURITY;

--
-- Name: sources removed; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY removed ON gitstore.sources FOR DELETE TO gitstore_user USING ((project_id = ANY (( SELECT gitstore.owned_projects() AS owned_projects)::uuid[])));


--
-- Name: subscription_secrets retired; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY retired ON gitstore.subscription_secrets FOR DELETE TO gitstore_user USING ((project_id = ANY (( SELECT gitstore.owned_projects() AS owned_projects)::uuid[])));


--
-- Name: access_tokens revoked; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY revoked ON gitstore.access_tokens FOR UPDATE TO gitstore_user USING ((project_id = ANY (( SELECT gitstore.owned_projects() AS owned_projects)::uuid[])));


--
-- Name: sources; Type: ROW SECURITY; Schema: gitstore; Owner: gitstore
--

ALTER TABLE gitstore.sources ENABLE ROW LEVEL SECURITY;

--
-- Name: subscription_secrets; Type: ROW SECURITY; Schema: gitstore; Owner: gitstore
--

ALTER TABLE gitstore.subscription_secrets ENABLE ROW LEVEL SECURITY;

--
-- Name: subscriptions; Type: ROW SECURITY; Schema: gitstore; Owner: gitstore
--

ALTER TABLE gitstore.subscriptions ENABLE ROW LEVEL SECURITY;

--
-- Name: access_tokens upkeep; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY upkeep ON gitstore.access_tokens TO gitstore USING (true) WITH CHECK (true);


--
-- Name: audit_log upkeep; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY upkeep ON gitstore.audit_log TO gitstore USING (true) WITH CHECK (true);


--
-- Name: deliveries upkeep; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY upkeep ON gitstore.deliveries TO gitstore USING (true) WITH CHECK (true);


--
-- Name: delivery_attempts upkeep; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY upkeep ON gitstore.delivery_attempts TO gitstore USING (true) WITH CHECK (true);


--
-- Name: divergences upkeep; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY upkeep ON gitstore.divergences TO gitstore USING (true) WITH CHECK (true);


--
-- Name: event_queue upkeep; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY upkeep ON gitstore.event_queue TO gitstore USING (true) WITH CHECK (true);


--
-- Name: events upkeep; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY upkeep ON gitstore.events TO gitstore USING (true) WITH CHECK (true);


--
-- Name: git_objects upkeep; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY upkeep ON gitstore.git_objects TO gitstore USING (true) WITH CHECK (true);


--
-- Name: members upkeep; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY upkeep ON gitstore.members TO gitstore USING (true) WITH CHECK (true);


--
-- Name: number_marks upkeep; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY upkeep ON gitstore.number_marks TO gitstore USING (true) WITH CHECK (true);


--
-- Name: projects upkeep; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY upkeep ON gitstore.projects TO gitstore USING (true) WITH CHECK (true);


--
-- Name: receipts upkeep; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY upkeep ON gitstore.receipts TO gitstore USING (true) WITH CHECK (true);


--
-- Name: sources upkeep; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY upkeep ON gitstore.sources TO gitstore USING (true) WITH CHECK (true);


--
-- Name: subscription_secrets upkeep; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY upkeep ON gitstore.subscription_secrets TO gitstore USING (true) WITH CHECK (true);


--
-- Name: subscriptions upkeep; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY upkeep ON gitstore.subscriptions TO gitstore USING (true) WITH CHECK (true);


--
-- Name: upstream_refs upkeep; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY upkeep ON gitstore.upstream_refs TO gitstore USING (true) WITH CHECK (true);


--
-- Name: workflow_versions upkeep; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY upkeep ON gitstore.workflow_versions TO gitstore USING (true) WITH CHECK (true);


--
-- Name: workflows upkeep; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY upkeep ON gitstore.workflows TO gitstore USING (true) WITH CHECK (true);


--
-- Name: upstream_refs; Type: ROW SECURITY; Schema: gitstore; Owner: gitstore
--

ALTER TABLE gitstore.upstream_refs ENABLE ROW LEVEL SECURITY;

--
-- Name: events visible; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY visible ON gitstore.events FOR SELECT USING ((project_id = ANY (( SELECT gitstore.visible_projects() AS visible_projects)::uuid[])));


--
-- Name: git_objects visible; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY visible ON gitstore.git_objects FOR SELECT USING ((project_id = ANY (( SELECT gitstore.visible_projects() AS visible_projects)::uuid[])));


--
-- Name: projects visible; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY visible ON gitstore.projects FOR SELECT USING ((id = ANY (( SELECT gitstore.visible_projects() AS visible_projects)::uuid[])));


--
-- Name: workflow_versions visible; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY visible ON gitstore.workflow_versions FOR SELECT USING ((project_id = ANY (( SELECT gitstore.visible_projects() AS visible_projects)::uuid[])));


--
-- Name: workflows visible; Type: POLICY; Schema: gitstore; Owner: gitstore
--

CREATE POLICY visible ON gitstore.workflows FOR SELECT USING ((project_id = ANY (( SELECT gitstore.visible_projects() AS visible_projects)::uuid[])));


--
-- Name: workflow_versions; Type: ROW SECURITY; Schema: gitstore; Owner: gitstore
--

ALTER TABLE gitstore.workflow_versions ENABLE ROW LEVEL SECURITY;

--
-- Name: workflows; Type: ROW SECURITY; Schema: gitstore; Owner: gitstore
--

ALTER TABLE gitstore.workflows ENABLE ROW LEVEL SECURITY;

--
-- Name: SCHEMA gitstore; Type: ACL; Schema: -; Owner: gitstore
--

GRANT USAGE ON SCHEMA gitstore TO gitstore_user;
GRANT USAGE ON SCHEMA gitstore TO gitstore_mirror;
GRANT USAGE ON SCHEMA gitstore TO gitstore_lookup;


--
-- Name: FUNCTION authenticate(secret bytea); Type: ACL; Schema: gitstore; Owner: gitstore_lookup
--

REVOKE ALL ON FUNCTION gitstore.authenticate(secret bytea) FROM PUBLIC;
GRANT ALL ON FUNCTION gitstore.authenticate(secret bytea) TO gitstore_user;


--
-- Name: TABLE access_tokens; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT ON TABLE gitstore.access_tokens TO gitstore_lookup;


--
-- Name: COLUMN access_tokens.id; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(id) ON TABLE gitstore.access_tokens TO gitstore_user;


--
-- Name: COLUMN access_tokens.project_id; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(project_id),INSERT(project_id) ON TABLE gitstore.access_tokens TO gitstore_user;


--
-- Name: COLUMN access_tokens.name; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(name),INSERT(name) ON TABLE gitstore.access_tokens TO gitstore_user;


--
-- Name: COLUMN access_tokens.role; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(role),INSERT(role) ON TABLE gitstore.access_tokens TO gitstore_user;


--
-- Name: COLUMN access_tokens.sha256; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT INSERT(sha256) ON TABLE gitstore.access_tokens TO gitstore_user;


--
-- Name: COLUMN access_tokens.created_at; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(created_at) ON TABLE gitstore.access_tokens TO gitstore_user;


--
-- Name: COLUMN access_tokens.last_used_at; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(last_used_at) ON TABLE gitstore.access_tokens TO gitstore_user;
GRANT UPDATE(last_used_at) ON TABLE gitstore.access_tokens TO gitstore_lookup;


--
-- Name: COLUMN access_tokens.expires_at; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(expires_at),INSERT(expires_at) ON TABLE gitstore.access_tokens TO gitstore_user;


--
-- Name: COLUMN access_tokens.revoked_at; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(revoked_at),UPDATE(revoked_at) ON TABLE gitstore.access_tokens TO gitstore_user;


--
-- Name: TABLE audit_log; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT,INSERT ON TABLE gitstore.audit_log TO gitstore_user;
GRANT INSERT ON TABLE gitstore.audit_log TO gitstore_mirror;


--
-- Name: TABLE deliveries; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT ON TABLE gitstore.deliveries TO gitstore_user;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE gitstore.deliveries TO gitstore_mirror;


--
-- Name: COLUMN deliveries.id; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT INSERT(id) ON TABLE gitstore.deliveries TO gitstore_user;


--
-- Name: COLUMN deliveries.project_id; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT INSERT(project_id) ON TABLE gitstore.deliveries TO gitstore_user;


--
-- Name: COLUMN deliveries.subscription_id; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT INSERT(subscription_id) ON TABLE gitstore.deliveries TO gitstore_user;


--
-- Name: COLUMN deliveries.event_id; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT INSERT(event_id) ON TABLE gitstore.deliveries TO gitstore_user;


--
-- Name: COLUMN deliveries.type; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT INSERT(type) ON TABLE gitstore.deliveries TO gitstore_user;


--
-- Name: COLUMN deliveries.data; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT INSERT(data) ON TABLE gitstore.deliveries TO gitstore_user;


--
-- Name: COLUMN deliveries.state; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT UPDATE(state) ON TABLE gitstore.deliveries TO gitstore_user;


--
-- Name: COLUMN deliveries.due_at; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT INSERT(due_at),UPDATE(due_at) ON TABLE gitstore.deliveries TO gitstore_user;


--
-- Name: COLUMN deliveries.tries; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT UPDATE(tries) ON TABLE gitstore.deliveries TO gitstore_user;


--
-- Name: COLUMN deliveries.last_error; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT UPDATE(last_error) ON TABLE gitstore.deliveries TO gitstore_user;


--
-- Name: COLUMN deliveries.ended_at; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT UPDATE(ended_at) ON TABLE gitstore.deliveries TO gitstore_user;


--
-- Name: COLUMN deliveries.claimed; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT UPDATE(claimed) ON TABLE gitstore.deliveries TO gitstore_user;


--
-- Name: COLUMN deliveries.crashes; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT UPDATE(crashes) ON TABLE gitstore.deliveries TO gitstore_user;


--
-- Name: TABLE delivery_attempts; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT ON TABLE gitstore.delivery_attempts TO gitstore_user;
GRANT SELECT,INSERT,DELETE ON TABLE gitstore.delivery_attempts TO gitstore_mirror;


--
-- Name: TABLE divergences; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT ON TABLE gitstore.divergences TO gitstore_user;
GRANT SELECT,INSERT,UPDATE ON TABLE gitstore.divergences TO gitstore_mirror;


--
-- Name: COLUMN divergences.decision; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT UPDATE(decision) ON TABLE gitstore.divergences TO gitstore_user;


--
-- Name: COLUMN divergences.decided_by; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT UPDATE(decided_by) ON TABLE gitstore.divergences TO gitstore_user;


--
-- Name: COLUMN divergences.resolved_at; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT UPDATE(resolved_at) ON TABLE gitstore.divergences TO gitstore_user;


--
-- Name: COLUMN divergences.resolution; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT UPDATE(resolution) ON TABLE gitstore.divergences TO gitstore_user;


--
-- Name: TABLE event_queue; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE gitstore.event_queue TO gitstore_mirror;


--
-- Name: TABLE events; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT ON TABLE gitstore.events TO gitstore_user;
GRANT SELECT,INSERT ON TABLE gitstore.events TO gitstore_mirror;


--
-- Name: TABLE git_objects; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT,INSERT ON TABLE gitstore.git_objects TO gitstore_mirror;
GRANT SELECT ON TABLE gitstore.git_objects TO gitstore_user;


--
-- Name: TABLE members; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT ON TABLE gitstore.members TO gitstore_user;
GRANT SELECT ON TABLE gitstore.members TO gitstore_lookup;


--
-- Name: TABLE number_marks; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT,INSERT,UPDATE ON TABLE gitstore.number_marks TO gitstore_mirror;


--
-- Name: TABLE projects; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT ON TABLE gitstore.projects TO gitstore_user;
GRANT SELECT ON TABLE gitstore.projects TO gitstore_mirror;
GRANT SELECT ON TABLE gitstore.projects TO gitstore_lookup;


--
-- Name: TABLE receipts; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE gitstore.receipts TO gitstore_mirror;


--
-- Name: TABLE sources; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT DELETE ON TABLE gitstore.sources TO gitstore_user;
GRANT SELECT,UPDATE ON TABLE gitstore.sources TO gitstore_mirror;


--
-- Name: COLUMN sources.id; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(id),INSERT(id) ON TABLE gitstore.sources TO gitstore_user;


--
-- Name: COLUMN sources.project_id; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(project_id),INSERT(project_id) ON TABLE gitstore.sources TO gitstore_user;


--
-- Name: COLUMN sources.url; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(url),INSERT(url) ON TABLE gitstore.sources TO gitstore_user;


--
-- Name: COLUMN sources.forge; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(forge),INSERT(forge),UPDATE(forge) ON TABLE gitstore.sources TO gitstore_user;


--
-- Name: COLUMN sources.layout; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(layout),INSERT(layout),UPDATE(layout) ON TABLE gitstore.sources TO gitstore_user;


--
-- Name: COLUMN sources.direction; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(direction),INSERT(direction),UPDATE(direction) ON TABLE gitstore.sources TO gitstore_user;


--
-- Name: COLUMN sources.poll_seconds; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(poll_seconds),INSERT(poll_seconds),UPDATE(poll_seconds) ON TABLE gitstore.sources TO gitstore_user;


--
-- Name: COLUMN sources.paused; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(paused),UPDATE(paused) ON TABLE gitstore.sources TO gitstore_user;


--
-- Name: COLUMN sources.has_credential; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(has_credential),INSERT(has_credential),UPDATE(has_credential) ON TABLE gitstore.sources TO gitstore_user;


--
-- Name: COLUMN sources.sealed_credential; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT INSERT(sealed_credential),UPDATE(sealed_credential) ON TABLE gitstore.sources TO gitstore_user;


--
-- Name: COLUMN sources.sealed_secret; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT INSERT(sealed_secret),UPDATE(sealed_secret) ON TABLE gitstore.sources TO gitstore_user;


--
-- Name: COLUMN sources.created_at; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(created_at) ON TABLE gitstore.sources TO gitstore_user;


--
-- Name: COLUMN sources.due_at; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(due_at),UPDATE(due_at) ON TABLE gitstore.sources TO gitstore_user;


--
-- Name: COLUMN sources.full_sync; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(full_sync),UPDATE(full_sync) ON TABLE gitstore.sources TO gitstore_user;


--
-- Name: COLUMN sources.claimed_until; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(claimed_until) ON TABLE gitstore.sources TO gitstore_user;


--
-- Name: COLUMN sources.tried_at; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(tried_at) ON TABLE gitstore.sources TO gitstore_user;


--
-- Name: COLUMN sources.succeeded_at; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(succeeded_at) ON TABLE gitstore.sources TO gitstore_user;


--
-- Name: COLUMN sources.failures; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(failures) ON TABLE gitstore.sources TO gitstore_user;


--
-- Name: COLUMN sources.last_error; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(last_error) ON TABLE gitstore.sources TO gitstore_user;


--
-- Name: COLUMN sources.report; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(report) ON TABLE gitstore.sources TO gitstore_user;


--
-- Name: COLUMN sources.crashes; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(crashes),UPDATE(crashes) ON TABLE gitstore.sources TO gitstore_user;


--
-- Name: COLUMN sources.poisoned_at; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(poisoned_at),UPDATE(poisoned_at) ON TABLE gitstore.sources TO gitstore_user;


--
-- Name: TABLE subscription_secrets; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT DELETE ON TABLE gitstore.subscription_secrets TO gitstore_user;
GRANT SELECT ON TABLE gitstore.subscription_secrets TO gitstore_mirror;


--
-- Name: COLUMN subscription_secrets.id; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(id),INSERT(id) ON TABLE gitstore.subscription_secrets TO gitstore_user;


--
-- Name: COLUMN subscription_secrets.subscription_id; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(subscription_id),INSERT(subscription_id) ON TABLE gitstore.subscription_secrets TO gitstore_user;


--
-- Name: COLUMN subscription_secrets.project_id; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(project_id),INSERT(project_id) ON TABLE gitstore.subscription_secrets TO gitstore_user;


--
-- Name: COLUMN subscription_secrets.sealed; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT INSERT(sealed) ON TABLE gitstore.subscription_secrets TO gitstore_user;


--
-- Name: COLUMN subscription_secrets.created_at; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(created_at) ON TABLE gitstore.subscription_secrets TO gitstore_user;


--
-- Name: COLUMN subscription_secrets.retires_at; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT(retires_at),UPDATE(retires_at) ON TABLE gitstore.subscription_secrets TO gitstore_user;


--
-- Name: TABLE subscriptions; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT ON TABLE gitstore.subscriptions TO gitstore_user;
GRANT SELECT,UPDATE ON TABLE gitstore.subscriptions TO gitstore_mirror;


--
-- Name: COLUMN subscriptions.id; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT INSERT(id) ON TABLE gitstore.subscriptions TO gitstore_user;


--
-- Name: COLUMN subscriptions.project_id; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT INSERT(project_id) ON TABLE gitstore.subscriptions TO gitstore_user;


--
-- Name: COLUMN subscriptions.url; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT INSERT(url),UPDATE(url) ON TABLE gitstore.subscriptions TO gitstore_user;


--
-- Name: COLUMN subscriptions.events; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT INSERT(events),UPDATE(events) ON TABLE gitstore.subscriptions TO gitstore_user;


--
-- Name: COLUMN subscriptions.state; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT UPDATE(state) ON TABLE gitstore.subscriptions TO gitstore_user;


--
-- Name: COLUMN subscriptions.reason; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT UPDATE(reason) ON TABLE gitstore.subscriptions TO gitstore_user;


--
-- Name: COLUMN subscriptions.failing_since; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT UPDATE(failing_since) ON TABLE gitstore.subscriptions TO gitstore_user;


--
-- Name: COLUMN subscriptions.quiet_until; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT UPDATE(quiet_until) ON TABLE gitstore.subscriptions TO gitstore_user;


--
-- Name: COLUMN subscriptions.updated_at; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT UPDATE(updated_at) ON TABLE gitstore.subscriptions TO gitstore_user;


--
-- Name: TABLE upstream_refs; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE gitstore.upstream_refs TO gitstore_mirror;


--
-- Name: TABLE workflow_versions; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT ON TABLE gitstore.workflow_versions TO gitstore_user;
GRANT SELECT,INSERT,UPDATE ON TABLE gitstore.workflow_versions TO gitstore_mirror;


--
-- Name: TABLE workflows; Type: ACL; Schema: gitstore; Owner: gitstore
--

GRANT SELECT ON TABLE gitstore.workflows TO gitstore_user;
GRANT SELECT,INSERT,UPDATE ON TABLE gitstore.workflows TO gitstore_mirror;


--
-- PostgreSQL database dump complete
--


