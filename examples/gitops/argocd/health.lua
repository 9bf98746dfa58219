-- Health of the four kinds of dbbackup.io as Argo CD shows it and its sync waits for. Argo CD runs the script with the object as `obj`, in Lua 5.1
-- without libraries. argocd-cm.yaml holds it under each kind; `make gen` writes it there.
local status = obj.status or {}
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end
local function holds(kind)
  return conditions[kind] ~= nil and conditions[kind].status == "True"
end
local ready = conditions.Ready

if obj.metadata.deletionTimestamp ~= nil then
  return {status = "Progressing", message = status.phase == "Deleting" and ready ~= nil and ready.message or "being deleted"}
end
if ready == nil then
  return {status = "Progressing", message = "the operator has not seen it yet"}
end
if status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "the operator has not seen its change yet"}
end
if holds("Stalled") then
  local hint = status.failure ~= nil and status.failure.hint or nil
  return {status = "Degraded", message = ready.reason .. ": " .. ready.message .. (hint ~= nil and " (" .. hint .. ")" or "")}
end

if obj.kind == "DatabaseBackupSchedule" and status.suspended then
  return {status = "Suspended", message = ready.message}
end
if obj.kind == "DatabaseBackupSchedule" and (status.consecutiveFailures or 0) > 0 then
  local last = status.lastSuccessfulTime ~= nil and "the last good one ended at " .. status.lastSuccessfulTime or "none has succeeded yet"
  return {status = "Degraded", message = "runs that failed, one after the other: " .. status.consecutiveFailures .. "; " .. last}
end
-- The operator keeps checking a storage that was usable and is unreachable now, but that is not progress.
if obj.kind == "BackupStorage" and holds("Reconciling") and status.checkedAt ~= nil then
  return {status = "Degraded", message = ready.reason .. ": " .. ready.message}
end
-- If retention removes an old artifact, nothing has to wait: the backup has served its purpose.
if holds("Reconciling") and ready.reason ~= "Expiring" then
  return {status = "Progressing", message = ready.message}
end
for _, kind in ipairs({"NearCapacity", "PruneHeld"}) do
  if holds(kind) then
    return {status = "Healthy", message = ready.message .. "; " .. conditions[kind].message}
  end
end
return {status = "Healthy", message = ready.message}
