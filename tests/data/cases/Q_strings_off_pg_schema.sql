CREATE SCHEMA pgapp; CREATE TABLE pgapp.t (a int); INSERT INTO pgapp.t VALUES (1);
