import { useStore } from "../shared/store";
import { useServices } from "./services";

const WORDS = {
  online: "",
  offline: "You are offline. What you asked for goes on; this page catches up when you are back.",
  unreachable: "Darkroom does not answer. What you asked for is kept; trying again…",
} as const;

/** Says so while the service cannot be reached. */
export function ConnectionNotice() {
  const { connection } = useServices();
  const reach = useStore(connection);
  return (
    <p role="status" className="connection" data-reach={reach} data-testid="connection">
      {WORDS[reach]}
    </p>
  );
}
