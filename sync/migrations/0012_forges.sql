-- The names of forges are checked by the service, whose table of forges is the only list of them:
-- adding one needs no migration.
alter table gitstore.sources drop constraint sources_forge_check;
