-- The place of the migration that makes assets.
select;
