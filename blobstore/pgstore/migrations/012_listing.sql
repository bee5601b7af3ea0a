-- The index of listings is of parent as a double, which holds every number that a drive hands out exactly. As before, finding a name can't
-- use it. But it was of -parent: taking a negative is not marked leakproof in Postgres, so under the policies a condition of it was
-- no condition of the index, and each page of a listing read all names of the drive. This cast is.
drop index mediafs.entries_position;
create unique index entries_position on mediafs.entries (drive_id, (parent::double precision), position);
